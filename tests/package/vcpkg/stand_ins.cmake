# vcpkg's functions, as far as the port calls them, for where there is no vcpkg: run a portfile by
#   cmake -D PORT=... -D CURRENT_PORT_DIR=... -D WORK=... -D FEATURES=... -D GENERATOR=... -P stand_ins.cmake
# They do what vcpkg's documentation says of theirs, for Linux and for what this port gives them, and no
# more: that the port passes here does not say that it passes there.
cmake_minimum_required(VERSION 3.25)
set(CURRENT_PACKAGES_DIR ${WORK}/packages)
set(CURRENT_BUILDTREES_DIR ${WORK}/buildtrees)
file(REMOVE_RECURSE ${CURRENT_PACKAGES_DIR} ${CURRENT_BUILDTREES_DIR})
set(VCPKG_LIBRARY_LINKAGE static)

macro(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY OUTPUT_QUIET)
endmacro()

# Which of the two builds there are, each as SUFFIX of the packages' folder and BUILD_TYPE.
macro(for_each_build body)
  if(NOT VCPKG_BUILD_TYPE STREQUAL "debug")
    cmake_language(CALL ${body} "" Release)
  endif()
  if(NOT VCPKG_BUILD_TYPE STREQUAL "release")
    cmake_language(CALL ${body} /debug Debug)
  endif()
endmacro()

function(vcpkg_check_linkage)
endfunction()

function(vcpkg_check_features)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" OUT_FEATURE_OPTIONS FEATURES)
  set(options)
  while(arg_FEATURES)
    list(POP_FRONT arg_FEATURES feature option)
    set(value OFF)
    if(feature IN_LIST FEATURES)
      set(value ON)
    endif()
    list(APPEND options -D${option}=${value})
  endwhile()
  set(${arg_OUT_FEATURE_OPTIONS} ${options} PARENT_SCOPE)
endfunction()

function(vcpkg_cmake_configure)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" SOURCE_PATH "OPTIONS;MAYBE_UNUSED_VARIABLES")
  function(configure suffix type)
    run(${CMAKE_COMMAND} --no-warn-unused-cli -S ${arg_SOURCE_PATH} -B ${CURRENT_BUILDTREES_DIR}/${type} -G ${GENERATOR}
      -DCMAKE_BUILD_TYPE=${type} -DCMAKE_INSTALL_PREFIX=${CURRENT_PACKAGES_DIR}${suffix}
      -DCMAKE_INSTALL_LIBDIR=lib ${arg_OPTIONS})
  endfunction()
  for_each_build(configure)
endfunction()

function(vcpkg_cmake_install)
  function(install_build suffix type)
    run(${CMAKE_COMMAND} --build ${CURRENT_BUILDTREES_DIR}/${type} --target install)
  endfunction()
  for_each_build(install_build)
endfunction()

# Moves a package of both builds to share/PORT, which is one folder less deep, and points the debug
# build's targets to debug/.
function(vcpkg_cmake_config_fixup)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" CONFIG_PATH "")
  cmake_path(GET arg_CONFIG_PATH PARENT_PATH parent)
  file(MAKE_DIRECTORY ${CURRENT_PACKAGES_DIR}/share)
  file(RENAME ${CURRENT_PACKAGES_DIR}/${arg_CONFIG_PATH} ${CURRENT_PACKAGES_DIR}/share/${PORT})
  file(REMOVE_RECURSE ${CURRENT_PACKAGES_DIR}/${parent})
  if(NOT VCPKG_BUILD_TYPE STREQUAL "release")
    file(GLOB debug ${CURRENT_PACKAGES_DIR}/debug/${arg_CONFIG_PATH}/*-debug.cmake)
    foreach(file IN LISTS debug)
      file(READ ${file} text)
      string(REPLACE "\${_IMPORT_PREFIX}/lib" "\${_IMPORT_PREFIX}/debug/lib" text "${text}")
      cmake_path(GET file FILENAME name)
      file(WRITE ${CURRENT_PACKAGES_DIR}/share/${PORT}/${name} "${text}")
    endforeach()
    file(REMOVE_RECURSE ${CURRENT_PACKAGES_DIR}/debug/${parent})
  endif()
  file(GLOB files ${CURRENT_PACKAGES_DIR}/share/${PORT}/*.cmake)
  foreach(file IN LISTS files)
    file(READ ${file} text)
    set(up "get_filename_component(_IMPORT_PREFIX \"\${_IMPORT_PREFIX}\" PATH)\n")
    string(REPLACE "${up}${up}${up}" "${up}${up}" text "${text}")
    string(REPLACE "{CMAKE_CURRENT_LIST_DIR}/../../../" "{CMAKE_CURRENT_LIST_DIR}/../../" text "${text}")
    file(WRITE ${file} "${text}")
  endforeach()
endfunction()

function(vcpkg_fixup_pkgconfig)  # for absolute paths, of which there are none: the check looks for them
endfunction()

function(vcpkg_install_copyright)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "" FILE_LIST)
  foreach(file IN LISTS arg_FILE_LIST)
    file(READ ${file} text)
    file(APPEND ${CURRENT_PACKAGES_DIR}/share/${PORT}/copyright "${text}\n")
  endforeach()
endfunction()

include(${CURRENT_PORT_DIR}/portfile.cmake)
