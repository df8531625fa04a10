"""What the service answers to each client's own submit call: path, status and body."""

import json
from typing import Any, Final

_NOW: Final = "2026-11-22T18:00:00.000Z"
_CREATED: Final = 201


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


_AIREITER: Final = _json(
    {
        "statusCode": 200,
        "message": "",
        "data": {
            "out_task_id": "",
            "status": "pending",
            "estimated_credits": 100,
            "created_at": _NOW,
        },
    }
)
_COMFY: Final = _json(
    {
        "id": "7f3d2c1b-9a8e-4d6f-b012-3c4d5e6f7a8b",
        "status": "queued",
        "created_at": _NOW,
        "started_at": None,
        "completed_at": None,
        "expires_at": "2026-12-22T18:00:00.000Z",
        "queue_position": 1,
        "progress": None,
        "outputs": [],
        "error": None,
        "urls": {
            "self": "/api/v2/jobs/7f3d2c1b",
            "events": "/api/v2/jobs/7f3d2c1b/events",
            "cancel": "/api/v2/jobs/7f3d2c1b/cancel",
        },
    }
)
_FAL: Final = _json(
    {
        "request_id": "764cabcf-b745-4b3e-ae38-1200304cf45b",
        "status": "IN_QUEUE",
        "queue_position": 1,
        "response_url": "https://queue.fal.run/fal-ai/video/requests/764cabcf",
        "status_url": "https://queue.fal.run/fal-ai/video/requests/764cabcf/status",
        "cancel_url": "https://queue.fal.run/fal-ai/video/requests/764cabcf/cancel",
    }
)
_GENAI: Final = _json(
    {"candidates": [{"content": {"parts": [{"text": "a kitten"}], "role": "model"}}]}
)
_OPENAI: Final = _json({"created": 1763830800, "data": [{"url": "https://example.com/a.png"}]})
_REPLICATE: Final = _json(
    {
        "id": "gm3qorzdhgbfurvjtvhg6dckhu",
        "model": "owner/video",
        "version": "a" * 64,
        "input": {"prompt": "A cute kitten"},
        "logs": "",
        "output": None,
        "error": None,
        "status": "starting",
        "created_at": _NOW,
        "urls": {
            "cancel": "https://api.replicate.com/v1/predictions/gm3/cancel",
            "get": "https://api.replicate.com/v1/predictions/gm3",
        },
    }
)
_RUNWAY: Final = _json(
    {"id": "497f6eca-6276-4993-bfeb-53cbbbba6f08", "estimatedCost": {"credits": 25}}
)
_ZYTE: Final = _json({"url": "https://example.com", "statusCode": 200, "httpResponseBody": ""})

REPLIES: Final[dict[bytes, tuple[int, bytes]]] = {
    b"/api/openapi/submit": (200, _AIREITER),
    b"/api/v2/jobs": (_CREATED, _COMFY),
    b"/fal-ai/video": (200, _FAL),
    b"/v1beta/models/gemini-image:generateContent": (200, _GENAI),
    b"/v1/images/generations": (200, _OPENAI),
    b"/v1/predictions": (_CREATED, _REPLICATE),
    b"/v1/text_to_video": (200, _RUNWAY),
    b"/v1/extract": (200, _ZYTE),
}
