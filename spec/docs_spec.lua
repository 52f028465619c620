-- docs_spec: the code that stands in docs/ runs.
local files = require "penumbra.base.files"
local helper = require "spec.helper"
local program = require "penumbra.program"
local shell = require "penumbra.base.shell"
local quote = shell.quote

describe("docs/from_pytorch.md", function()
  local dir = helper.directory(teardown)
  local page = files.read(program.home .. "/docs/from_pytorch.md")
  local script = page:match "\n```lua\n(.-)\n```"

  local function train(...)
    local words = { "cd", quote(dir), "&&", quote(program.exe), "train.lua", "out=out", "checkpoint_every=2", ... }
    local pipe = io.popen(table.concat(words, " ") .. " 2>&1; echo $?")
    local output = pipe:read "*a"
    pipe:close()
    return output:match "^(.*)\n(%d+)\n$"
  end

  it("has a script that learns, and goes on as if it had not stopped", function()
    files.write(dir .. "/train.lua", script)
    local output, code = train "epochs=40"
    assert.equal("0", code, output)
    local inside, outside = output:match "mean probability inside (%S+), outside (%S+)"
    assert.is_true(tonumber(inside) > 0.8 and tonumber(outside) < 0.4, output)
    local whole = files.read(dir .. "/out/net.safetensors")
    assert.equal("0", select(2, train("out=parts", "epochs=20", "workers=0")))
    assert.equal("0", select(2, train("out=parts", "epochs=40")))
    assert.equal(whole, files.read(dir .. "/parts/net.safetensors"))
  end)

  it("tells what is so", function() -- what stands in its table, in short
    local pn = require "penumbra"
    local x = pn.ones { 2, 3, 4, 5 }
    assert.same({ 2, 3, 1, 1 }, x:sum({ 3, 4, keep = true }):shape())
    assert.same({ 6, 20 }, x:reshape(6, -1):shape())
    assert.same({ 2, 3, 4, 5 }, x:slice(2, 1, 3):shape())
    assert.same({ 4, 3, 4, 5 }, pn.concat({ x, x }, { axis = 1 }):shape())
    local freed = pn.scope(function()
      local t = pn.ones { 3 }
      return function() return t:sum() end
    end)
    helper.failure(freed, "used after its scope ended")
    assert.truthy(page:find("used after its scope ended", 1, true))
    for name in page:gmatch "`?pn%.([%a_]+[%w_.]*)" do
      local value = pn
      for part in name:gmatch "[^.]+" do value = value[part] end
      assert.is_not_nil(value, name)
    end
  end)
end)

describe("docs/models.md", function()
  local dir = helper.directory(teardown)
  local page = files.read(program.home .. "/docs/models.md")
  local model, script = page:match "\n```lua\n(.-)\n```.*\n```lua\n(.-)\n```"
  files.make_directory(dir .. "/models")
  files.write(dir .. "/models/tiny.lua", model)
  files.write(dir .. "/tiny.lua", script)
  local out = dir .. "/out"

  local function succeeds(...)
    local words = { quote(program.exe) }
    for _, word in ipairs { ... } do words[#words + 1] = quote(word) end
    local output, code = shell.run(table.concat(words, " "))
    assert.equal(0, code, output)
    return output
  end

  it("has a model and a recipe that learn, from another directory", function()
    local output = succeeds(dir .. "/tiny.lua", "threads=1", "out=" .. out)
    assert.is_true(tonumber(output:match "walk +(%d+%.%d)") > 50, output)
  end)

  it("has a model that segment and info take", function()
    local tiny = "model=" .. dir .. "/models/tiny.lua"
    local frames = out .. "/toy/JPEGImages/480p/walk"
    succeeds("segment", frames, "checkpoint=" .. out, tiny, "threads=1", "out=" .. dir .. "/segment")
    assert.is_true(files.exists(dir .. "/segment/masks/walk/00007.png"))
    local output = succeeds("info", dir .. "/models/tiny.lua", "width=4", "frames=4", "size=16", "measure=false")
    assert.truthy(output:find("head +1,4,4,16,16 %-> 1,1,4,16,16"), output)
  end)
end)
