# praetor_add_library(NAME [DEPENDS target...])   a static library from every .cpp below the calling folder
# praetor_add_tests(NAME DEPENDS target...)       one test binary from every *_test.cpp below it, one CTest entry a source file
# praetor_add_fuzzer(NAME SOURCE DEPENDS target...)

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  # The precompiled header is named by a checksum file (below): its own bytes differ from one making to the next, and
  # are many to hash for every object.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
    CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
    CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 CCACHE_PCH_EXTSUM=1 ${CCACHE_PROGRAM})
endif()
find_program(MOLD_PROGRAM mold)

# Warnings, language level, include roots and sanitizers, as usage requirements of one target.
add_library(praetor_flags INTERFACE)
target_compile_features(praetor_flags INTERFACE cxx_std_20)
target_include_directories(praetor_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(praetor_flags INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wpedantic -Wno-missing-field-initializers
  -fno-math-errno -ffp-contract=off $<$<BOOL:${PRAETOR_WERROR}>:-Werror> $<$<BOOL:${PRAETOR_PCH}>:-Winvalid-pch>)
if(MOLD_PROGRAM AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 12.1)
  target_link_options(praetor_flags INTERFACE -fuse-ld=mold)
endif()
if(PRAETOR_SANITIZE)
  target_compile_options(praetor_flags INTERFACE -fsanitize=${PRAETOR_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=undefined)
  target_link_options(praetor_flags INTERFACE -fsanitize=${PRAETOR_SANITIZE})
endif()

# What every test runs with. The thread sanitizer cannot see the barriers of LibTorch's libgomp, which is not instrumented.
set(PRAETOR_TEST_ENVIRONMENT OMP_WAIT_POLICY=passive UBSAN_OPTIONS=print_stacktrace=1)
if(PRAETOR_SANITIZE MATCHES thread)
  list(APPEND PRAETOR_TEST_ENVIRONMENT OMP_NUM_THREADS=1)
endif()

if(PRAETOR_PCH)
  file(WRITE ${CMAKE_BINARY_DIR}/praetor_pch.cpp "")
  add_library(praetor_pch OBJECT ${CMAKE_BINARY_DIR}/praetor_pch.cpp)
  target_link_libraries(praetor_pch PRIVATE praetor_flags praetor_torch)
  set(headers <torch/types.h> <string> <vector>)
  target_precompile_headers(praetor_pch PRIVATE ${headers})
  # Everything that decides what the precompiled header says.
  string(SHA256 pch_sum "${headers} ${LIBTORCH_ROOT} ${CMAKE_CXX_COMPILER} ${CMAKE_CXX_COMPILER_VERSION} ${CMAKE_BUILD_TYPE} \
${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_RELEASE} ${CMAKE_CXX_FLAGS_DEBUG} ${PRAETOR_SANITIZE} ${PRAETOR_WERROR}")
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/CMakeFiles/praetor_pch.dir/cmake_pch.hxx.gch.sum CONTENT "${pch_sum}\n")
endif()

function(praetor_common target)
  target_link_libraries(${target} PUBLIC praetor_flags praetor_torch)
  if(PRAETOR_PCH)
    target_precompile_headers(${target} REUSE_FROM praetor_pch)
  endif()
endfunction()

function(praetor_add_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/main\\.cpp$")
  add_library(praetor_${name} STATIC ${sources})
  add_library(praetor::${name} ALIAS praetor_${name})
  set_target_properties(praetor_${name} PROPERTIES LINKER_LANGUAGE CXX)
  praetor_common(praetor_${name})
  target_link_libraries(praetor_${name} PUBLIC ${ARG_DEPENDS})
endfunction()

# A source tests/FOLDER/a/b_test.cpp becomes the CTest entry FOLDER/a/b (label: slow when it ends in _slow_test.cpp, else cpu).
function(praetor_add_tests name)
  cmake_parse_arguments(ARG "" "" "DEPENDS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  if(NOT sources)
    return()
  endif()
  add_executable(tests_${name} ${sources} ${CMAKE_SOURCE_DIR}/tests/support/main.cpp)
  praetor_common(tests_${name})
  target_link_libraries(tests_${name} PRIVATE ${ARG_DEPENDS} praetor_test_support)
  foreach(source ${sources})
    if(NOT source MATCHES "_test\\.cpp$")
      continue()
    endif()
    get_filename_component(stem ${source} NAME_WE)
    file(RELATIVE_PATH relative ${CMAKE_CURRENT_SOURCE_DIR} ${source})
    string(REGEX REPLACE "_test\\.cpp$" "" entry ${relative})
    add_test(NAME ${entry} COMMAND tests_${name} "-#" "[#${stem}]" WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set(label cpu)
    if(stem MATCHES "_slow_test$")
      set(label slow)
    endif()
    set_tests_properties(${entry} PROPERTIES LABELS ${label} TIMEOUT 600
      ENVIRONMENT "${PRAETOR_TEST_ENVIRONMENT}")
  endforeach()
endfunction()

function(praetor_add_fuzzer name source)
  cmake_parse_arguments(ARG "" "" "DEPENDS" ${ARGN})
  add_executable(fuzz_${name} ${source})
  praetor_common(fuzz_${name})
  target_compile_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  target_link_libraries(fuzz_${name} PRIVATE ${ARG_DEPENDS})
endfunction()

# Protobuf's headers lay maps out otherwise in a build with the thread sanitizer, but its archive was made without: the
# sources of the calling folder that match, which include them, must not see the macro.
function(praetor_plain_protobuf)
  if(PRAETOR_SANITIZE MATCHES thread)
    file(GLOB_RECURSE sources ${ARGN})
    set_source_files_properties(${sources} PROPERTIES SKIP_PRECOMPILE_HEADERS ON COMPILE_OPTIONS -U__SANITIZE_THREAD__)
  endif()
endfunction()
