--- Affine maps of the plane as six numbers: (x, y) -> (m[1] x + m[2] y + m[3], m[4] x + m[5] y + m[6]).
-- Points are (x, y) in pixels, pixel centres at whole numbers from 0, as in the C library.

local affine = {}

--- The map that moves nothing.
function affine.identity()
  return { 1, 0, 0, 0, 1, 0 }
end

--- x -> x + dx, y -> y + dy.
function affine.shift(dx, dy)
  return { 1, 0, dx, 0, 1, dy }
end

--- a after b: the point goes through b first.
function affine.after(a, b)
  return {
    a[1] * b[1] + a[2] * b[4], a[1] * b[2] + a[2] * b[5], a[1] * b[3] + a[2] * b[6] + a[3],
    a[4] * b[1] + a[5] * b[4], a[4] * b[2] + a[5] * b[5], a[4] * b[3] + a[5] * b[6] + a[6],
  }
end

--- The map that undoes m.
function affine.invert(m)
  local d = m[1] * m[5] - m[2] * m[4]
  if d == 0 or d ~= d then
    error("affine: a map that flattens the plane cannot be undone", 2)
  end
  local a, b, c, e = m[5] / d, -m[2] / d, -m[4] / d, m[1] / d
  return { a, b, -(a * m[3] + b * m[6]), c, e, -(c * m[3] + e * m[6]) }
end

--- Turns by degrees (from the x axis to the y axis, which is clockwise on a screen) and scales about one point, which then
-- lands on another: `affine.pose(degrees, scale, {from_x, from_y}, {to_x, to_y})`. Without `to` the point stays.
function affine.pose(degrees, scale, from, to)
  to = to or from
  local r = math.rad(degrees)
  local c, s = scale * math.cos(r), scale * math.sin(r)
  return { c, -s, to[1] - c * from[1] + s * from[2], s, c, to[2] - s * from[1] - c * from[2] }
end

--- Left becomes right in a picture `width` pixels wide.
function affine.mirror(width)
  return { -1, 0, width - 1, 0, 1, 0 }
end

--- Where a point goes.
function affine.at(m, x, y)
  return m[1] * x + m[2] * y + m[3], m[4] * x + m[5] * y + m[6]
end

return affine
