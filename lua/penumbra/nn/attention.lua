--- Attention: what each place of x finds in a memory, by likeness (Vaswani et al. 2017).
--
--     local read = nn.attention { size = 128, heads = 4 }
--     local y = read(x)                      -- x (N,L,128) looks at itself
--     local y = read(x, memory)              -- at memory (N,M,128): the pixels of earlier frames, say
--     local y = read(x, memory, bias)        -- bias (...,L,M) is added to the likeness: -1e9 where x must not look

local named = require "penumbra.base.named"
local linear = require "penumbra.nn.linear".linear
local module = require "penumbra.nn.module"
local ops = require "penumbra.ops"
local raise = require "penumbra.base.raise"
local scope = require "penumbra.scope"

local Attention = module.class "attention"

--- softmax(q k'/√(size/heads) + bias) v for each head, then a linear layer on the heads side by side; q = query(x),
-- k = key(memory), v = value(memory). Children: query, key, value, out, linear layers of size to size.
-- @tparam table options size; heads (1), which divide size
function Attention:new(options)
  named.check("attention", options, { "size", "heads" })
  local size = named.whole("attention", "size", options.size, 1)
  self.heads = named.whole("attention", "heads", options.heads or 1, 1)
  if size % self.heads ~= 0 then
    raise("attention: heads %d do not divide size %d", self.heads, size)
  end
  self.n_from, self.n_to = size, size
  for _, name in ipairs { "query", "key", "value", "out" } do
    self:add(name, linear { from = size, to = size, init = "xavier" })
  end
end

function Attention:describe()
  return ("heads %d"):format(self.heads)
end

local function check(self, what, t)
  if t:dims() ~= 3 or t:size(3) ~= self.n_from then
    raise("attention: %s is %s, expects N,L,%d", what, table.concat(t:shape(), ","), self.n_from)
  end
end

-- (N,L,size) -> (N,heads,L,size/heads), a view
local function apart(t, heads)
  return t:reshape(t:size(1), t:size(2), heads, t:size(3) / heads):permute(1, 3, 2, 4)
end

-- The largest tensors here are (N,heads,L,M): each is given up once the next is there. (Backward keeps what it needs itself.)
local function after(used, made)
  scope.drop(used)
  return made
end

--- @param x (N,L,size)
-- @param memory ?tensor (N,M,size); x itself without one
-- @param bias ?tensor what broadcasts to (N,heads,L,M)
-- @treturn tensor (N,L,size)
function Attention:forward(x, memory, bias)
  memory = memory or x
  check(self, "x", x)
  check(self, "memory", memory)
  if x:size(1) ~= memory:size(1) then
    raise("attention: x has %d in a batch, memory %d", x:size(1), memory:size(1))
  end
  local q = self.query(x) * (self.n_from / self.heads) ^ -0.5
  local k, v = apart(self.key(memory), self.heads), apart(self.value(memory), self.heads)
  local likeness = ops.matmul(apart(q, self.heads), k, { transpose_b = true })
  if bias then
    likeness = after(likeness, likeness + bias)
  end
  local share = after(likeness, ops.softmax(likeness, { axis = 4 }))
  local found = after(share, ops.matmul(share, v)):permute(1, 3, 2, 4)
  return self.out(found:reshape(x:size(1), x:size(2), self.n_from))
end

return { attention = Attention }
