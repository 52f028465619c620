--- The 58 convolutions of I3D under every name they go by: one row a unit, in the order of the network.
--
-- Sizes and TensorFlow names: DeepMind's release (deepmind/kinetics-i3d, i3d.py), whose Mixed_5b Branch_2 is "Conv3d_0a_3x3"
-- where its siblings are "Conv3d_0b_3x3". PyTorch names: piergiaj/pytorch-i3d and hassony2/kinetics_i3d_pytorch.
--
-- A unit: name (ours: "mixed_3b.branch1b"), tf ("Mixed_3b/Branch_1/Conv3d_0b_3x3"), also (a second spelling of tf),
-- piergiaj ("Mixed_3b.b1b"), hassony2 ("mixed_3b.branch_1.1"), from, to (channels), kernel (one number: it is a cube).

local units = {}

local function unit(row)
  units[#units + 1] = row
end

local function single(name, tf, from, to, kernel)
  unit { name = name, tf = tf, piergiaj = tf, hassony2 = tf:lower(), from = from, to = to, kernel = kernel }
end

local function mixed(block, from, b0, b1a, b1b, b2a, b2b, b3)
  local name, tf, lower = block:lower(), block .. "/Branch_", block:lower() .. ".branch_"
  local function branch(ours, path, piergiaj, hassony2, inputs, outputs, kernel, also)
    unit {
      name = name .. "." .. ours, tf = tf .. path, also = also and tf .. also, piergiaj = block .. "." .. piergiaj,
      hassony2 = lower .. hassony2, from = inputs, to = outputs, kernel = kernel,
    }
  end
  branch("branch0", "0/Conv3d_0a_1x1", "b0", "0", from, b0, 1)
  branch("branch1a", "1/Conv3d_0a_1x1", "b1a", "1.0", from, b1a, 1)
  branch("branch1b", "1/Conv3d_0b_3x3", "b1b", "1.1", b1a, b1b, 3)
  branch("branch2a", "2/Conv3d_0a_1x1", "b2a", "2.0", from, b2a, 1)
  branch("branch2b", "2/Conv3d_0b_3x3", "b2b", "2.1", b2a, b2b, 3, block == "Mixed_5b" and "2/Conv3d_0a_3x3" or nil)
  branch("branch3", "3/Conv3d_0b_1x1", "b3b", "3.1", from, b3, 1)
end

single("conv3d_1a", "Conv3d_1a_7x7", 3, 64, 7)
single("conv3d_2b", "Conv3d_2b_1x1", 64, 64, 1)
single("conv3d_2c", "Conv3d_2c_3x3", 64, 192, 3)
mixed("Mixed_3b", 192, 64, 96, 128, 16, 32, 32)
mixed("Mixed_3c", 256, 128, 128, 192, 32, 96, 64)
mixed("Mixed_4b", 480, 192, 96, 208, 16, 48, 64)
mixed("Mixed_4c", 512, 160, 112, 224, 24, 64, 64)
mixed("Mixed_4d", 512, 128, 128, 256, 24, 64, 64)
mixed("Mixed_4e", 512, 112, 144, 288, 32, 64, 64)
mixed("Mixed_4f", 528, 256, 160, 320, 32, 128, 128)
mixed("Mixed_5b", 832, 256, 160, 320, 32, 128, 128)
mixed("Mixed_5c", 832, 384, 192, 384, 48, 128, 128)
unit {
  name = "logits", tf = "Logits/Conv3d_0c_1x1", piergiaj = "logits", hassony2 = "conv3d_0c_1x1", from = 1024, to = 400, kernel = 1,
  is_head = true,
}

return units
