rockspec_format = "3.0"
package = "penumbra"
version = "scm-1"
source = { url = "git+file://." }
description = {
  summary = "Tensors and networks for video object segmentation, in C and scripted from LuaJIT",
  detailed = [[
A tensor framework in C11 with automatic differentiation, scripted from LuaJIT, whose first residents are models that segment an
object through a video: FCN-I3D, trained on one annotated frame. Needs LuaJIT 2.1, a C11 compiler, CMake, OpenBLAS, libspng,
cairo, stb and zlib.]],
  license = "Apache-2.0",
}
supported_platforms = { "linux" }
dependencies = { "lua == 5.1", "lua-cjson", "luafilesystem" }
external_dependencies = {
  OPENBLAS = { library = "openblas" }, SPNG = { library = "spng" }, CAIRO = { library = "cairo" }, ZLIB = { library = "z" },
}
build = {
  type = "command",
  build_command = "cmake -S . -B build -DCMAKE_BUILD_TYPE=Release && cmake --build build",
  install_command = "PREFIX=$(PREFIX) LUADIR=$(LUADIR) BINDIR=$(BINDIR) scripts/install.sh",
}
