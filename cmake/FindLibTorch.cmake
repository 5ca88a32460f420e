# Imported target praetor_torch for the CPU half of LibTorch as scripts/bootstrap unpacks it from the PyPI wheel.
# The wheel's own TorchConfig.cmake insists on a CUDA toolkit, which neither building nor a CPU run needs.
#
# LIBTORCH_ROOT: folder with include/ and lib/ (default: $LIBTORCH_ROOT, then $PRAETOR_CACHE/libtorch, then ~/.cache/praetor/libtorch)
if(NOT LIBTORCH_ROOT)
  if(DEFINED ENV{LIBTORCH_ROOT})
    set(LIBTORCH_ROOT $ENV{LIBTORCH_ROOT})
  elseif(DEFINED ENV{PRAETOR_CACHE})
    set(LIBTORCH_ROOT $ENV{PRAETOR_CACHE}/libtorch)
  elseif(DEFINED ENV{XDG_CACHE_HOME})
    set(LIBTORCH_ROOT $ENV{XDG_CACHE_HOME}/praetor/libtorch)
  else()
    set(LIBTORCH_ROOT $ENV{HOME}/.cache/praetor/libtorch)
  endif()
endif()
get_filename_component(LIBTORCH_ROOT "${LIBTORCH_ROOT}" REALPATH)
find_library(LIBTORCH_CPU torch_cpu PATHS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH)
find_library(LIBTORCH_C10 c10 PATHS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH)
find_path(LIBTORCH_INCLUDE ATen/ATen.h PATHS ${LIBTORCH_ROOT}/include NO_DEFAULT_PATH)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LIBTORCH_CPU LIBTORCH_C10 LIBTORCH_INCLUDE
  REASON_FAILURE_MESSAGE "run scripts/bootstrap, or set LIBTORCH_ROOT to a folder with LibTorch's include/ and lib/")

if(LibTorch_FOUND AND NOT TARGET praetor_torch)
  add_library(praetor_torch INTERFACE IMPORTED)
  target_include_directories(praetor_torch SYSTEM INTERFACE
    ${LIBTORCH_INCLUDE} ${LIBTORCH_INCLUDE}/torch/csrc/api/include)
  # libgomp is LibTorch's own copy, so that one OpenMP pool serves LibTorch and our kernels.
  target_link_libraries(praetor_torch INTERFACE
    ${LIBTORCH_CPU} ${LIBTORCH_C10} -Wl,--as-needed ${LIBTORCH_ROOT}/lib/libgomp.so.1
    -Wl,-rpath,${LIBTORCH_ROOT}/lib -Wl,--allow-shlib-undefined)
  target_compile_definitions(praetor_torch INTERFACE _GLIBCXX_USE_CXX11_ABI=1)
endif()
