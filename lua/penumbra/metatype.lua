-- What a tensor is to Lua: its text, what x + y and x[i] mean, and where its methods are found. Of penumbra.tensor, which calls
-- this once: LuaJIT takes the metatable of a type for good.

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local nearest = require "penumbra.base.nearest"
local raise = require "penumbra.base.raise"
local sorted_keys = require "penumbra.base.sorted_keys"

local is_tensor = binding.is_tensor
local tensor, methods -- penumbra.tensor, and the methods of tensors

local function format_values(values)
  if type(values) == "number" then
    return ("%.6g"):format(values)
  end
  local parts = {}
  for i, value in ipairs(values) do
    parts[i] = format_values(value)
  end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function describe(t)
  if t.p == nil then
    return "tensor (freed)"
  end
  local head = ("tensor %s %s %s"):format(table.concat(t:shape(), ","), t:dtype(), t:device()):gsub("  ", " ")
  if t:count() <= 64 and t:device() == "cpu" then
    return head .. " " .. format_values(t:totable())
  end
  return head
end

local print = print -- a script may put its own in the place of this one, and call it

-- print(t) shows a large one as the prompt does, in some lines; any other text of it, as in a message, is one line.
local function to_text(t)
  local caller = debug.getinfo(2, "f")
  if caller and caller.func == print and t.p ~= nil and t:count() > 64 then
    local ok, text = pcall(tensor.show, t) -- of show.lua
    if ok then
      return text
    end
  end
  return describe(t)
end

-- Operators are the methods that ops.lua makes of operations. A number on one side needs no tensor of its own: it is
-- y = factor·x + offset.
local function linear(t, factor, offset)
  return methods.scale(t, { a = factor, b = offset })
end

-- Numbers that are not take the way of tensors: x / 0 is infinite, as anywhere.
local function is_finite(value)
  return type(value) == "number" and value - value == 0
end

-- What someone wrote between [ ].
local function index_text(key)
  if type(key) ~= "table" then
    return is_tensor(key) and "a tensor" or tostring(key)
  end
  local parts = {}
  for i, part in ipairs(key) do
    parts[i] = type(part) == "table" and index_text(part) or tostring(part)
  end
  return "{" .. table.concat(parts, ", ") .. "}"
end

-- @tparam table module penumbra.tensor
return function(module)
  tensor, methods = module, module.methods
  ffi.metatype(binding.Ref, {
    __gc = methods.free,
    __tostring = to_text,
    __index = function(t, key)
      local method = methods[key]
      if type(key) == "number" then
        return methods.select(t, 1, key)
      elseif method == nil and type(key) ~= "string" then
        raise("a tensor is not indexed with [%s]: t[i] is a part of the first axis, t:get(i, ...) reads an element, "
          .. "t:slice(axis, first, count) is a part", index_text(key))
      elseif method == nil then
        local known = sorted_keys(methods)
        raise("a tensor has no method '%s'%s", tostring(key), nearest.hint(key, known))
      end
      return method
    end,
    __eq = function(a, b) -- the same tensor, not the same values: Lua makes a boolean of what this returns, so a:eq(b) compares
      return is_tensor(a) and is_tensor(b) and a.p == b.p
    end,
    __newindex = function(_, key)
      raise("a tensor has no field %s to set: t:set(value, i, ...) sets an element, t:fill(value) and t:copy(from) all, "
        .. "t[i]:fill(value) and t[i]:copy(from) a part",
        type(key) == "string" and "'" .. key .. "'" or "[" .. index_text(key) .. "]")
    end,
    __len = function()
      raise("a tensor has no length: t:size(axis), t:count() and t:dims() count")
    end,
    __lt = function()
      raise("tensors have no order: compare numbers (t:item(), t:get(i, ...)), or elements (t:lt(other), t:ge(0.5))")
    end,
    __le = function()
      raise("tensors have no order: compare numbers (t:item(), t:get(i, ...)), or elements (t:lt(other), t:ge(0.5))")
    end,
    __concat = function()
      raise("a tensor is no text: tostring(t) is")
    end,
    __add = function(a, b)
      if is_finite(a) then
        return linear(b, 1, a)
      elseif is_finite(b) then
        return linear(a, 1, b)
      end
      return methods.add(a, b)
    end,
    __sub = function(a, b)
      if is_finite(a) then
        return linear(b, -1, a)
      elseif is_finite(b) then
        return linear(a, 1, -b)
      end
      return methods.sub(a, b)
    end,
    __mul = function(a, b)
      if is_finite(a) then
        return linear(b, a, 0)
      elseif is_finite(b) then
        return linear(a, b, 0)
      end
      return methods.mul(a, b)
    end,
    __div = function(a, b)
      if type(b) == "number" and is_finite(1 / b) then
        return linear(a, 1 / b, 0)
      end
      return methods.div(a, b)
    end,
    __mod = function()
      raise("tensors have no %: x - n * (x / n):cast(\"i64\"):cast(\"real\") is what is left of x / n, with the sign of x")
    end,
    __pow = function(a, b)
      if is_tensor(b) then
        raise("pow: the exponent is a tensor, expects a number: %s",
          is_tensor(a) and "a ^ x is pn.exp(x * pn.log(a)), where a is above 0"
          or ("%s ^ x is pn.exp(x * math.log(%s))"):format(tostring(a), tostring(a)))
      elseif type(b) ~= "number" then
        raise("pow: the exponent is a %s, expects a number", type(b))
      end
      return methods.pow(a, { exponent = b })
    end,
    __unm = function(a)
      return methods.neg(a)
    end,
  })
end
