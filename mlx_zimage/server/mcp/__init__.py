"""MCP: tools by which language models draw, over stdio or HTTP; it needs the extra `mcp`.

`tools.py` says what there is, and asks a studio to draw: the service of this process
(`studio.py`), or another server that runs already (`remote.py`).
"""
