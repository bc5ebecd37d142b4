# prospect_one_object(VARIABLE NAME KEEP OBJECT...): object files (those of a target as
# $<TARGET_OBJECTS:target>) as one, NAME, in which every name is local but those that match KEEP, as an
# objcopy wildcard; VARIABLE becomes its path.
#
# An inline function or template stands in every object that uses it, and a linker keeps one for all:
# the archive could be given a host's, compiled for a processor it does not run on, or the host ours.
# Names that are local are nobody's business. Where the linker and objcopy of GNU binutils are not at
# hand (prospect_find_one_object), VARIABLE becomes the objects as they are, with hidden names.

# prospect_find_one_object(VARIABLE): whether objects can be made one.
function(prospect_find_one_object variable)
  # By name: what CMake finds beside clang are LLVM's, and its linker keeps groups together.
  find_program(PROSPECT_GNU_LD NAMES ld.bfd ld)
  find_program(PROSPECT_GNU_OBJCOPY objcopy)
  mark_as_advanced(PROSPECT_GNU_LD PROSPECT_GNU_OBJCOPY)
  if(PROSPECT_GNU_LD AND PROSPECT_GNU_OBJCOPY)
    execute_process(COMMAND ${PROSPECT_GNU_LD} --help OUTPUT_VARIABLE help ERROR_QUIET)
  endif()
  if(help MATCHES "--force-group-allocation")
    set(${variable} ON PARENT_SCOPE)
  else()
    set(${variable} OFF PARENT_SCOPE)
  endif()
endfunction()

function(prospect_one_object variable name keep)
  prospect_find_one_object(can)
  if(NOT can)
    message(STATUS "prospect: no GNU ld and objcopy, so the archive's names are hidden, not local")
    set(${variable} ${ARGN} PARENT_SCOPE)
    return()
  endif()
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}${CMAKE_CXX_OUTPUT_EXTENSION})
  add_custom_command(OUTPUT ${object}
    COMMAND ${PROSPECT_GNU_LD} -r --force-group-allocation -o ${object} ${ARGN}
    COMMAND ${PROSPECT_GNU_OBJCOPY} --wildcard "--keep-global-symbol=${keep}" ${object}
    DEPENDS ${ARGN}
    COMMENT "Linking objects into ${name}"
    COMMAND_EXPAND_LISTS VERBATIM)
  set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
  set(${variable} ${object} PARENT_SCOPE)
endfunction()
