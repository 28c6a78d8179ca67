# ess_cc_library(NAME HDRS ... SRCS ... DEPS ... [TORCH])
#
# A library of one folder: target ess_NAME, alias ess::NAME. Every source, header and direct
# dependency is listed by hand, but for the files of server/models. TORCH: sources include ATen; they share one precompiled header.
function(ess_cc_library name)
  cmake_parse_arguments(ARG "TORCH" "" "HDRS;SRCS;DEPS" ${ARGN})
  add_library(ess_${name} STATIC ${ARG_SRCS} ${ARG_HDRS})
  set_target_properties(ess_${name} PROPERTIES LINKER_LANGUAGE CXX)
  add_library(ess::${name} ALIAS ess_${name})
  target_link_libraries(ess_${name} PRIVATE ess_compile_options PUBLIC ${ARG_DEPS})
  if(ARG_TORCH)
    ess_use_torch(ess_${name})
  endif()
endfunction()

# ess_cc_executable(NAME SRCS ... DEPS ... [TORCH]): a program at bin/NAME.
function(ess_cc_executable name)
  cmake_parse_arguments(ARG "TORCH" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE ess_compile_options ${ARG_DEPS})
  if(ARG_TORCH)
    ess_use_torch(${name})
  endif()
endfunction()

# ess_cc_test(NAME SRCS ... DEPS ... [TORCH] [LABELS ...]): a GoogleTest program, run by ctest.
function(ess_cc_test name)
  cmake_parse_arguments(ARG "TORCH" "" "SRCS;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_link_libraries(${name} PRIVATE ess_compile_options ${ARG_DEPS} GTest::gmock_main)
  if(ARG_TORCH)
    ess_use_torch(${name})
  endif()
  if(ESS_SANITIZE STREQUAL "thread")
    target_link_libraries(${name} PRIVATE ess_tsan_abseil)  # tests/support
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT 600 LABELS "${ARG_LABELS}")
endfunction()

# Compiles a target with LibTorch and the shared precompiled header.
function(ess_use_torch target)
  target_link_libraries(${target} PUBLIC LibTorch::cpu)
  if(NOT TARGET ess_torch_pch)
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/torch_pch.cc CONTENT "")
    add_library(ess_torch_pch OBJECT ${CMAKE_BINARY_DIR}/torch_pch.cc)
    target_link_libraries(ess_torch_pch PRIVATE ess_compile_options LibTorch::cpu)
    target_precompile_headers(ess_torch_pch PRIVATE <ATen/ATen.h>)
  endif()
  target_precompile_headers(${target} REUSE_FROM ess_torch_pch)
endfunction()
