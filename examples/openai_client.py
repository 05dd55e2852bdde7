"""Draw, watch and change a picture with OpenAI's client on a running server.

pip install openai; python openai_client.py [SERVER]
"""

import base64
import sys
from pathlib import Path

from openai import OpenAI

SERVER = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8765"
client = OpenAI(base_url=f"{SERVER}/v1", api_key="none")

# Fields of this server's own go into `extra_body`, and come back beside the picture.
drawn = client.images.generate(prompt="a red circle on a blue background", extra_body={"seed": 7})
picture = drawn.data[0]
Path("circle.png").write_bytes(base64.b64decode(picture.b64_json))
print(f"circle.png, seed {picture.seed}")

# A stream shows what becomes of a picture while it is drawn.
stream = client.images.generate(prompt="a white star on black", stream=True, partial_images=2)
for event in stream:
    if event.type == "image_generation.partial_image":
        print(f"preview {event.partial_image_index + 1}")
    else:
        Path("star.png").write_bytes(base64.b64decode(event.b64_json))
        print("star.png")

# An edit describes the whole of the result; a mask would be transparent where it may change.
changed = client.images.edit(
    image=Path("circle.png"),
    prompt="a green circle on a blue background",
    extra_body={"strength": 0.7, "seed": 3},
)
Path("green.png").write_bytes(base64.b64decode(changed.data[0].b64_json))
print("green.png")
