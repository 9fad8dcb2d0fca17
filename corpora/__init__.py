"""Sources of text: each script writes a corpus as plain .txt or .jsonl, for data.py or for you."""
