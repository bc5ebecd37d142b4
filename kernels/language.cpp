// Nothing: CMake sees by this file, and not by the object that is all of the archive, that whoever
// links it links C++.
