# Finds LibTorch and defines LibTorch::cpu, without the CUDA toolkit that TorchConfig.cmake wants.
#
# TORCH_DIR (variable or environment) names a folder with lib/ and include/: a LibTorch
# distribution or the `torch` folder of a wheel. Default: the wheel of .venv.
#
# The wheel's include/ holds its own google/protobuf, so the compiler gets a folder with links to
# ATen, c10 and torch only. libtorch_cuda.so is not linked: the server loads it at start-up when
# it is there and a device is wanted.
if(NOT TORCH_DIR)
  if(DEFINED ENV{TORCH_DIR})
    set(TORCH_DIR $ENV{TORCH_DIR})
  else()
    execute_process(
      COMMAND ${CMAKE_SOURCE_DIR}/.venv/bin/python -c
        "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
      OUTPUT_VARIABLE TORCH_DIR OUTPUT_STRIP_TRAILING_WHITESPACE)
  endif()
endif()

# Not cached: the environment may move to another folder when its packages change.
find_path(LibTorch_INCLUDE_DIR ATen/ATen.h PATHS ${TORCH_DIR}/include NO_DEFAULT_PATH NO_CACHE)
find_library(LibTorch_CPU_LIBRARY torch_cpu PATHS ${TORCH_DIR}/lib NO_DEFAULT_PATH NO_CACHE)
find_library(LibTorch_C10_LIBRARY c10 PATHS ${TORCH_DIR}/lib NO_DEFAULT_PATH NO_CACHE)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "run tools/setup, or set TORCH_DIR to a LibTorch of 2.11 or later")

if(LibTorch_FOUND AND NOT TARGET LibTorch::cpu)
  set(_links ${CMAKE_BINARY_DIR}/torch_include)
  file(MAKE_DIRECTORY ${_links})
  foreach(_folder ATen c10 torch)
    file(CREATE_LINK ${LibTorch_INCLUDE_DIR}/${_folder} ${_links}/${_folder} SYMBOLIC)
  endforeach()

  add_library(LibTorch::c10 SHARED IMPORTED)
  set_target_properties(LibTorch::c10 PROPERTIES IMPORTED_LOCATION ${LibTorch_C10_LIBRARY})
  add_library(LibTorch::cpu SHARED IMPORTED)
  # libprotobuf comes before libtorch_cpu, which carries symbols of another version.
  set_target_properties(LibTorch::cpu PROPERTIES
    IMPORTED_LOCATION ${LibTorch_CPU_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${_links}
    INTERFACE_LINK_LIBRARIES LibTorch::c10)
endif()
