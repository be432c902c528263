"""What users may rely on: names, signatures of the faces, and a quick import."""

import inspect
import subprocess
import sys

import osler


def test_the_exported_names() -> None:
    assert sorted(osler.__all__) == [
        "Answer",
        "Classification",
        "OslerError",
        "__version__",
        "load",
        "load_encoder",
    ]
    assert all(hasattr(osler, name) for name in osler.__all__)


def test_the_faces_of_the_models() -> None:
    from osler.tasks.assistant import Assistant
    from osler.tasks.chat_model import ChatModel
    from osler.tasks.encoder import ImageTextEncoder
    from osler.tasks.remote import RemoteAssistant

    assert _public(ChatModel) == ["ask", "chat", "stream", "version"]
    assert _public(Assistant) == ["config", "engine", "logits", "processor", "save", "version"]
    assert _public(RemoteAssistant) == ["scored", "version"]
    assert issubclass(Assistant, ChatModel)
    assert issubclass(RemoteAssistant, ChatModel)
    assert _public(ImageTextEncoder) == [
        *("classify", "compare", "config", "embed_images", "embed_texts", "processor", "save"),
    ]
    assert list(inspect.signature(osler.load).parameters) == [
        *("name", "device", "dtype", "version", "engine", "engine_token"),
    ]
    assert list(inspect.signature(osler.load_encoder).parameters) == ["name", "device", "dtype"]


def test_importing_osler_and_its_command_line_imports_nothing_slow() -> None:
    code = (
        "import sys, osler.cli; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _public(face: type) -> list[str]:
    return sorted(name for name in vars(face) if not name.startswith("_"))
