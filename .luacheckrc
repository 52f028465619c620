std = "luajit"
max_line_length = 132
cache = false
exclude_files = { "build*", "out" }
files["spec"] = { std = "+busted" }
