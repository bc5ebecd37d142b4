# Install rules: headers, archive, shared library, CMake package and pkg-config files. Everything
# that is installed finds its neighbours relative to itself, so the prefix may be moved.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/prospect)
set(targets prospect)
set(pkg_config_files prospect-headers)
if(PROSPECT_KERNELS)
  list(APPEND targets prospect_kernels)
  list(APPEND pkg_config_files prospect)
endif()
if(PROSPECT_SHARED)
  list(APPEND targets prospect_shared)
  list(APPEND pkg_config_files prospect-shared)
endif()
if(TARGET prospect_cublaslt)
  list(APPEND targets prospect_cublaslt)
  list(APPEND pkg_config_files prospect-cublaslt)
endif()
install(TARGETS ${targets} EXPORT prospect_targets FILE_SET HEADERS)
install(EXPORT prospect_targets NAMESPACE prospect:: DESTINATION ${package_dir})
install(FILES LICENSE TYPE DOC)
if(TARGET prospect_baseline_head)
  install(FILES cmake/packages/NOTICE TYPE DOC)
endif()

# Device code needs its runtime, wherever the archive is linked.
set(prospect_with_cuda FALSE)
set(prospect_cuda_libs)
if(CMAKE_CUDA_COMPILER AND PROSPECT_KERNELS)
  set(prospect_with_cuda TRUE)
  set(prospect_cuda_libs "-L${CUDAToolkit_LIBRARY_DIR} -lcudart")
endif()

configure_package_config_file(cmake/prospect-config.cmake.in prospect-config.cmake
  INSTALL_DESTINATION ${package_dir})
set(any_architecture)
if(NOT PROSPECT_KERNELS)
  set(any_architecture ARCH_INDEPENDENT)
endif()
# Before 1.0 a minor version may change anything.
write_basic_package_version_file(prospect-config-version.cmake
  COMPATIBILITY SameMinorVersion ${any_architecture})
install(FILES
  ${CMAKE_CURRENT_BINARY_DIR}/prospect-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/prospect-config-version.cmake
  cmake/cuda_std.cmake
  cmake/onednn.cmake
  DESTINATION ${package_dir})

# pkg-config replaces ${pcfiledir} by the folder of the .pc file.
file(RELATIVE_PATH pc_to_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
foreach(name IN LISTS pkg_config_files)
  configure_file(cmake/${name}.pc.in ${name}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${name}.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
