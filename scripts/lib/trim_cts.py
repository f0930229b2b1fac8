"""Takes everything out of a checkout of VK-GL-CTS but dEQP-VK.sparse_resources and what it needs.

    trim_cts.py FOLDER

A whole deqp-vk takes hours to build, this one minutes. Only lists of what is built are changed, no test.
"""

import re
import sys
from pathlib import Path

GROUP = "sparse_resources"


def edit(file, *rules):
    """Applies (regular expression, replacement) in order; one that matches nothing means that the CTS has changed."""
    text = file.read_text()
    for pattern, replacement in rules:
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        if count == 0:
            sys.exit(f"{file}: nothing matches {pattern}: trim_cts.py does not fit this version of the CTS")
    file.write_text(text)


def main():
    root = Path(sys.argv[1])
    vulkan = root / "external/vulkancts/modules/vulkan"

    unused = "external/(vulkan-validationlayers|amber|vulkansc-pcutil|vulkancts/vksc\\w+|openglcts)|execserver|executor|modules"
    edit(
        root / "CMakeLists.txt",
        (rf"^\s*add_subdirectory\(({unused})[ )].*$", ""),
        (r"^include_directories\(external/amber\)$", ""),
    )
    edit(
        vulkan / "CMakeLists.txt",
        (rf"^add_subdirectory\((?!{GROUP}\)|util\)).*$", ""),
        (r"^.*\(deqp-vksc-custom-instances-devices-util .*$", ""),
        (r"^(target_link_libraries\(deqp-vk-custom-instances-devices-util .*) deqp-vk-video-config", r"\1"),
        (r"^\tvktInfoTests\..pp\n", ""),
        (
            r"^set\(DEQP_VK_LIBS\n[^)]*\)",
            "set(DEQP_VK_LIBS\n\ttcutil\n\tvkutil\n\tglutil\n\tdeqp-vk-sparse-resources\n"
            "\tdeqp-vk-custom-instances-devices-util\n\tdeqp-vk-util\n\t)",
        ),
        (r"^list\(APPEND DEQP_VK_LIBS\n[^)]*\)", ""),
        (r"^add_deqp_module_skip_android\(deqp-vksc .*$", ""),
        # Data of other groups, and a program to compile shaders ahead.
        (r"^\s*add_data_dir\(.*$", ""),
        (r"^\s*(add_executable|target_link_libraries)\(vk-build-programs .*$", ""),
    )
    edit(
        vulkan / "vktTestPackage.cpp",
        (r'^#include "vkt(?!SparseResources)\w*(Tests|TestsEXT)\.hpp"\n', ""),
        # Both functions that make the group glsl, up to their closing brace in the first column.
        (r"^(void|tcu::TestCaseGroup \*)\s*createGlslTests\([^)]*\)\n\{\n(.*\n)*?\}\n", ""),
        (rf'^ *addRootChild\("(?!{GROUP}").*\n', ""),
    )


main()
