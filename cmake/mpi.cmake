# MPI, where it is found, for the tests and examples of adapters/mpi.hpp: MPI::MPI_CXX without the C++
# bindings that MPI has done away with, and mpi_test. Debian: libopenmpi-dev, or libmpich-dev.
set(MPI_CXX_SKIP_MPICXX ON)
find_package(MPI 3.0 QUIET COMPONENTS CXX)
if(NOT MPI_CXX_FOUND OR NOT MPIEXEC_EXECUTABLE)
  set(MPI_CXX_FOUND FALSE)
endif()

# What ranks that share a few processors, with whatever else runs there, need of Open MPI 4 and 5: to
# start as root and in any number, to be bound to no processor, and to let others on while they wait.
# (MPICH does so as it is.)
set(mpi_environment OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  OMPI_MCA_rmaps_base_oversubscribe=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
  OMPI_MCA_hwloc_base_binding_policy=none PRTE_MCA_hwloc_default_binding_policy=none
  OMPI_MCA_mpi_yield_when_idle=1)

# mpi_test(NAME RANKS PROGRAM ARGUMENTS...): the program by as many ranks.
function(mpi_test name ranks program)
  add_test(NAME "${name}" COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks}
    ${MPIEXEC_PREFLAGS} $<TARGET_FILE:${program}> ${MPIEXEC_POSTFLAGS} ${ARGN})
  set(environment ${mpi_environment})
  if(CMAKE_CXX_FLAGS MATCHES "-fsanitize")
    list(APPEND environment ASAN_OPTIONS=detect_leaks=0)  # MPI's own
  endif()
  # A rank that waits for another waits for ever.
  set_tests_properties("${name}" PROPERTIES
    ENVIRONMENT "${environment}" PROCESSORS ${ranks} TIMEOUT 900)
endfunction()
