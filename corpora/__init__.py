"""Where text comes from: each script lays a corpus down as plain .txt or .jsonl, for data.py or for you."""
