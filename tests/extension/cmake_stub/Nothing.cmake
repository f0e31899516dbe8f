# Slicer writes the extension's description and package here.
foreach(needed NAME HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if(NOT EXTENSION_${needed})
    message(FATAL_ERROR "EXTENSION_${needed} is not set")
  endif()
endforeach()
