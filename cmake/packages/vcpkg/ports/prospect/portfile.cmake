# An overlay port of the tree that it stands in: a registry would fetch a release here.
cmake_path(SET SOURCE_PATH NORMALIZE "${CMAKE_CURRENT_LIST_DIR}/../../../../..")

if("kernels" IN_LIST FEATURES)
  vcpkg_check_linkage(ONLY_STATIC_LIBRARY)
else()
  set(VCPKG_BUILD_TYPE release)  # headers alone
endif()
vcpkg_check_features(OUT_FEATURE_OPTIONS feature_options
  FEATURES
    kernels PROSPECT_KERNELS
    kernels PROSPECT_C_HEAD)
vcpkg_cmake_configure(
  SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS
    ${feature_options}
    -DPROSPECT_CUDA=OFF
    -DPROSPECT_BUILD_TESTS=OFF
    -DPROSPECT_BUILD_EXAMPLES=OFF
    -DPROSPECT_BUILD_BENCH=OFF
  MAYBE_UNUSED_VARIABLES
    PROSPECT_C_HEAD)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH lib/cmake/prospect)
vcpkg_fixup_pkgconfig()

file(GLOB licences "${CURRENT_PACKAGES_DIR}/share/doc/prospect/*")
vcpkg_install_copyright(FILE_LIST ${licences})
file(REMOVE_RECURSE
  "${CURRENT_PACKAGES_DIR}/debug/include"
  "${CURRENT_PACKAGES_DIR}/debug/share"
  "${CURRENT_PACKAGES_DIR}/share/doc")
file(INSTALL "${CMAKE_CURRENT_LIST_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
