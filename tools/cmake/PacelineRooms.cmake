# pl_room(NAME DIR SOURCES … DEPS …): one static library a room. Its headers are reached only through a folder that holds
# just this room, so that including a room which is not among DEPS does not compile: the target graph is the arrows.
function(pl_room name dir)
  cmake_parse_arguments(R "" "" "SOURCES;DEPS;LIBS" ${ARGN})
  set(inc ${CMAKE_BINARY_DIR}/include.d/${name})
  get_filename_component(parent ${inc}/${dir} DIRECTORY)
  file(MAKE_DIRECTORY ${parent})
  file(CREATE_LINK ${CMAKE_SOURCE_DIR}/${dir} ${inc}/${dir} SYMBOLIC)
  add_library(${name} STATIC ${R_SOURCES})
  target_include_directories(${name} PUBLIC $<BUILD_INTERFACE:${inc}>)
  target_link_libraries(${name} PUBLIC pl_flags ${R_DEPS} ${R_LIBS})
endfunction()

# What every file is compiled with.
add_library(pl_flags INTERFACE)
target_compile_definitions(pl_flags INTERFACE _GNU_SOURCE PL_VERSION="${PROJECT_VERSION}")
target_compile_options(pl_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:-Wall -Wextra -Wmissing-prototypes -Wstrict-prototypes
  -Wvla -Wwrite-strings -fno-common -ffp-contract=off $<$<BOOL:${PACELINE_WERROR}>:-Werror>>)
target_link_libraries(pl_flags INTERFACE m)
if(PACELINE_SANITIZE)
  target_compile_definitions(pl_flags INTERFACE PL_SANITIZED)
  target_compile_options(pl_flags INTERFACE -fsanitize=${PACELINE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(pl_flags INTERFACE -fsanitize=${PACELINE_SANITIZE})
endif()
if(PACELINE_FUZZ)
  target_compile_options(pl_flags INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(pl_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
