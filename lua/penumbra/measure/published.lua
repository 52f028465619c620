--- Published results on the 20 validation sequences of DAVIS 2016, for printing beside one's own.
-- Means: each method's paper, or the benchmark's table; per sequence (J, F of OSVOS, then of MaskTrack): the results that the
-- authors of DAVIS published with their evaluation code (fperazzi/davis). Values 0-1.

local published = {}

-- { method, J mean, F mean }, best first.
published.means = {
  { "OnAVOS", 0.861, 0.849 }, { "OSVOS-S", 0.856, 0.875 }, { "Lucid", 0.839, 0.820 }, { "OSVOS", 0.798, 0.806 },
  { "MaskTrack", 0.797, 0.754 }, { "FSEG", 0.707, 0.653 }, { "FCN-I3D (the paper)", 0.378, 0.407 },
  { "first mask copied", 0.266, 0.243 }, { "all foreground", 0.082, 0 },
}

-- The methods of per_sequence, in the order of its numbers: J and F each.
published.methods = { "OSVOS", "MaskTrack" }

published.per_sequence = {
  ["blackswan"] = { 0.9423, 0.9753, 0.9030, 0.8936 },
  ["bmx-trees"] = { 0.5551, 0.7361, 0.5749, 0.7360 },
  ["breakdance"] = { 0.7079, 0.7446, 0.7615, 0.7251 },
  ["camel"] = { 0.8512, 0.8789, 0.8009, 0.7355 },
  ["car-roundabout"] = { 0.9534, 0.9076, 0.9599, 0.9260 },
  ["car-shadow"] = { 0.9373, 0.9425, 0.9349, 0.9475 },
  ["cows"] = { 0.9456, 0.9618, 0.8818, 0.8118 },
  ["dance-twirl"] = { 0.6701, 0.7158, 0.8444, 0.8094 },
  ["dog"] = { 0.9070, 0.9207, 0.9086, 0.8845 },
  ["drift-chicane"] = { 0.8349, 0.9156, 0.8620, 0.9635 },
  ["drift-straight"] = { 0.6756, 0.7137, 0.5602, 0.5503 },
  ["goat"] = { 0.8802, 0.8952, 0.8452, 0.8141 },
  ["horsejump-high"] = { 0.7799, 0.8679, 0.8173, 0.8514 },
  ["kite-surf"] = { 0.6858, 0.6270, 0.6000, 0.4385 },
  ["libby"] = { 0.8077, 0.9026, 0.7749, 0.8559 },
  ["motocross-jump"] = { 0.8160, 0.6437, 0.6852, 0.5269 },
  ["paragliding-launch"] = { 0.6254, 0.3978, 0.6205, 0.2286 },
  ["parkour"] = { 0.8556, 0.8481, 0.8820, 0.8742 },
  ["scooter-black"] = { 0.7115, 0.7173, 0.8248, 0.6609 },
  ["soapbox"] = { 0.8116, 0.8135, 0.8993, 0.8424 },
}

-- Is one of these sequences of that set? Beside scores of other clips the means would say nothing.
function published.has_any(names)
  for _, name in ipairs(names) do
    if published.per_sequence[name] then return true end
  end
  return false
end

return published
