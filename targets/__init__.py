"""What a microcontroller is: descriptions, memory and cycle models, toolchain, emulated core."""
