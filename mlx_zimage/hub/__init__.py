"""Sources to paths: models on this machine, and models fetched from the Hugging Face Hub."""
