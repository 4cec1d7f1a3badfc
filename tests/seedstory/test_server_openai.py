"""OpenAI's own Python client, unchanged, against the server."""

import base64
import io

import openai
import pytest
from PIL import Image

from seedstory.server.library import Library
from tests.seedstory.serving import OPENING, serving

FEW = {"pages": 3, "num_inference_steps": 1}


@pytest.fixture(scope="module")
def server(pipe, library):
    with serving(pipe, library) as client:
        yield client


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.base_url}/v1", api_key="none", max_retries=0)


def image_of(part):
    head, data = part["image_url"]["url"].split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_models(client):
    (model,) = client.models.list().data
    assert model.id and client.models.retrieve(model.id).id == model.id
    with pytest.raises(openai.NotFoundError, match="no other"):
        client.models.retrieve("gpt-4")


def test_a_chat_is_a_story(client, server, library, pipe):
    asked = {"model": "seedstory", "messages": [{"role": "user", "content": OPENING}], "seed": 3, "max_tokens": 12}
    answer = client.chat.completions.create(**asked, extra_body=FEW)
    (choice,) = answer.choices
    assert choice.finish_reason == "stop" and choice.message.role == "assistant"
    content = choice.message.content
    assert [part["type"] for part in content] == ["text", "image_url"] * 3
    alone = pipe(OPENING, pages=3, seed=3, num_inference_steps=1, max_caption_tokens=6)
    assert [part["text"] for part in content[::2]] == alone.captions
    assert [image_of(part).tobytes() for part in content[1::2]] == [image.tobytes() for image in alone.images]
    assert answer.usage.completion_tokens > 0
    assert server.get("/api/stories").json()["stories"] == [] and not Library(library).ids()


def test_a_stream_says_the_same(client, library):
    asked = {"model": "seedstory", "messages": [{"role": "user", "content": OPENING}], "seed": 3, "max_tokens": 12}
    whole = client.chat.completions.create(**asked, extra_body=FEW).choices[0].message.content
    words, images, reasons, usage = [""], [], [], None
    stream = client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}, extra_body=FEW | {"store": True}
    )
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            reasons.append(choice.finish_reason)
            if isinstance(choice.delta.content, str):
                words[-1] += choice.delta.content
            elif choice.delta.content:
                images += choice.delta.content
                words.append("")
    assert words[:-1] == [part["text"] for part in whole[::2]]
    assert images == whole[1::2]
    assert reasons[-1] == "stop" and usage.total_tokens > 0
    (kept,) = Library(library).ids()
    assert Library(library).open(kept).is_complete  # stored, as was asked


def test_an_image_opens_a_chat(client):
    data = io.BytesIO()
    Image.new("RGB", (60, 60), "teal").save(data, "PNG")
    url = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
    parts = [{"type": "text", "text": OPENING}, {"type": "image_url", "image_url": {"url": url}}]
    asked = {"model": "seedstory", "messages": [{"role": "user", "content": parts}]}
    answer = client.chat.completions.create(**asked, extra_body=FEW | {"pages": 2})
    opening = image_of(answer.choices[0].message.content[1])
    assert opening.getpixel((5, 5)) == (0, 128, 128)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/x.png", "https://example.com/x.png", "file:///etc/passwd", "data:,"]
)
def test_no_address_is_fetched(client, url):
    parts = [{"type": "image_url", "image_url": {"url": url}}]
    with pytest.raises(openai.BadRequestError, match="data URL"):
        client.chat.completions.create(model="seedstory", messages=[{"role": "user", "content": parts}])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"n": 2}, "cannot honor n"),
        ({"temperature": 50.0}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"frequency_penalty": 1.0}, "frequency_penalty"),
        ({"extra_body": {"pages": 100_000}}, "pages"),
        ({"extra_body": {"scheduler": "lcm"}}, "lcm does not fit"),
        ({"extra_body": {"guidance_interval": [0.9, 0.1]}}, "guidance_interval"),
        ({"messages": [{"role": "system", "content": "a"}]}, "role user"),
        ({"messages": [{"role": "user", "content": " "}]}, "empty"),
    ],
)
def test_what_cannot_be_honored_is_refused(client, asked, words):
    given = {"model": "seedstory", "messages": [{"role": "user", "content": OPENING}]} | asked
    with pytest.raises(openai.BadRequestError, match=words):
        client.chat.completions.create(**given)


def test_images(client, pipe, server, library):
    before = Library(library).ids()
    answer = client.images.generate(prompt=OPENING, n=2, size="48x48", extra_body={"seed": 3, "num_inference_steps": 1})
    images = [Image.open(io.BytesIO(base64.b64decode(one.b64_json))) for one in answer.data]
    expected = [pipe(OPENING, pages=1, seed=seed, num_inference_steps=1).images[0] for seed in (3, 4)]
    assert [image.tobytes() for image in images] == [image.tobytes() for image in expected]
    assert Library(library).ids() == before
    for wrong in ({"size": "1024x1024"}, {"n": 99}, {"response_format": "url"}, {"extra_body": {"scheduler": "x"}}):
        with pytest.raises(openai.BadRequestError):
            client.images.generate(prompt=OPENING, **wrong)
