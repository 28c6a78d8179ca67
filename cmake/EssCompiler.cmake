# Compiler flags for our own code, as the interface target ess_compile_options.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  # base_dir makes checkouts in different folders share the cache; the sloppiness is what
  # precompiled headers need.
  set(_launcher ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1
      CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE_PROGRAM})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${_launcher})
  set(CMAKE_C_COMPILER_LAUNCHER ${_launcher})
endif()

add_library(ess_compile_options INTERFACE)
target_compile_options(ess_compile_options INTERFACE
  -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-field-initializers
  -fno-omit-frame-pointer -pthread)
if(CCACHE_PROGRAM)
  # Precompiled headers stay cacheable only when the preprocessor keeps their include.
  target_compile_options(ess_compile_options INTERFACE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
endif()
target_include_directories(ess_compile_options INTERFACE ${CMAKE_SOURCE_DIR})
if(ESS_SANITIZE)
  # Sanitizers confuse GCC's flow warnings; the release build is where warnings are errors.
  target_compile_options(ess_compile_options INTERFACE -fsanitize=${ESS_SANITIZE} -O1 -Wno-error)
  target_link_options(ess_compile_options INTERFACE -fsanitize=${ESS_SANITIZE})
endif()
if(ESS_FUZZ)
  target_compile_options(ess_compile_options INTERFACE -fsanitize=fuzzer-no-link)
  # No target computes: the kernels for one instruction set are enough, and compile much faster.
  target_compile_definitions(ess_compile_options INTERFACE HWY_COMPILE_ONLY_STATIC)
endif()
