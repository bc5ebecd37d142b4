# prospect::onednn: the headers with oneDNN's matrix product (cpu/gemm_onednn.hpp), where oneDNN
# (Debian: libdnnl-dev) and Eigen are found. Its own package is not asked: that wants OpenCL. Where it
# runs on OpenMP's threads, OpenMP too: it is told to run on one.
if(NOT TARGET prospect::onednn)
  find_package(Eigen3 3.4 QUIET NO_MODULE)
  find_path(PROSPECT_ONEDNN_INCLUDE oneapi/dnnl/dnnl.hpp)
  find_library(PROSPECT_ONEDNN_LIBRARY dnnl)
  mark_as_advanced(PROSPECT_ONEDNN_INCLUDE PROSPECT_ONEDNN_LIBRARY)
  if(Eigen3_FOUND AND PROSPECT_ONEDNN_INCLUDE AND PROSPECT_ONEDNN_LIBRARY)
    add_library(prospect::onednn INTERFACE IMPORTED GLOBAL)
    target_include_directories(prospect::onednn INTERFACE ${PROSPECT_ONEDNN_INCLUDE})
    target_link_libraries(prospect::onednn
      INTERFACE prospect::prospect Eigen3::Eigen ${PROSPECT_ONEDNN_LIBRARY})
    file(STRINGS ${PROSPECT_ONEDNN_INCLUDE}/oneapi/dnnl/dnnl_config.h on_openmp
      REGEX "^#define DNNL_CPU_RUNTIME DNNL_RUNTIME_OMP")
    if(on_openmp)
      find_package(OpenMP QUIET COMPONENTS CXX)
      if(OpenMP_CXX_FOUND)
        target_link_libraries(prospect::onednn INTERFACE ${OpenMP_CXX_LIBRARIES})
      else()
        target_link_libraries(prospect::onednn INTERFACE gomp)  # clang without libomp
      endif()
    endif()
  endif()
endif()
