# prospect_one_object(VARIABLE TARGET...): all objects of these object libraries as one, in which every
# name is local but those of the C API; VARIABLE becomes what a static library is made of.
#
# An inline function or template stands in every object that uses it, and a linker keeps one for all:
# the archive could be given a host's, compiled for a processor it does not run on, or the host ours.
# Names that are local are nobody's business. Where the linker and objcopy of GNU binutils are not at
# hand, objects stay as they are, with hidden names.
function(prospect_one_object variable)
  set(objects)
  foreach(target IN LISTS ARGN)
    list(APPEND objects $<TARGET_OBJECTS:${target}>)
  endforeach()
  # By name: what CMake finds beside clang are LLVM's, and its linker keeps groups together.
  find_program(PROSPECT_GNU_LD NAMES ld.bfd ld)
  find_program(PROSPECT_GNU_OBJCOPY objcopy)
  mark_as_advanced(PROSPECT_GNU_LD PROSPECT_GNU_OBJCOPY)
  if(PROSPECT_GNU_LD AND PROSPECT_GNU_OBJCOPY)
    execute_process(COMMAND ${PROSPECT_GNU_LD} --help OUTPUT_VARIABLE help ERROR_QUIET)
  endif()
  if(NOT help MATCHES "--force-group-allocation")
    message(STATUS "prospect: no GNU ld and objcopy, so the archive's names are hidden, not local")
    set(${variable} ${objects} PARENT_SCOPE)
    return()
  endif()
  set(object ${CMAKE_CURRENT_BINARY_DIR}/prospect${CMAKE_CXX_OUTPUT_EXTENSION})
  add_custom_command(OUTPUT ${object}
    COMMAND ${PROSPECT_GNU_LD} -r --force-group-allocation -o ${object} ${objects}
    COMMAND ${PROSPECT_GNU_OBJCOPY} --wildcard "--keep-global-symbol=prospect_*" ${object}
    DEPENDS ${ARGN} ${objects}
    COMMENT "Linking the archive's objects into one"
    COMMAND_EXPAND_LISTS VERBATIM)
  set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
  set(${variable} ${object} PARENT_SCOPE)
endfunction()
