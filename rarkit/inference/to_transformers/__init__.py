"""Export for Hugging Face transformers: a folder that ``AutoModelForCausalLM`` loads where rarkit is not installed."""
