"""MLX modules, named as the official checkpoint names them. They know no files and no prompts."""
