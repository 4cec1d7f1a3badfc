"""A spoken track for the film, by a local speech program: espeak-ng, if it is installed. No words leave the machine."""

from __future__ import annotations

import io
import logging
import re
import shutil
import subprocess
import wave
from dataclasses import dataclass

import numpy as np

from seedstory.errors import RequestError

logger = logging.getLogger(__name__)
PROGRAM = "espeak-ng"
RATE = 22_050  # Hz, espeak-ng's own
SECONDS = 120  # that one page may take to be spoken by the program


@dataclass(frozen=True)
class Speaker:
    """A voice of the speech program."""

    program: str
    voice: str

    @classmethod
    def find(cls, language: str) -> Speaker:
        """The voice for a language; English where there is none for it, which is said in one line.

        Raises:
            RequestError: There is no speech program.
        """
        program = shutil.which(PROGRAM)
        if program is None:
            raise RequestError(f"a narration needs the program {PROGRAM}, which is not installed")
        wanted = (language or "en").lower()
        for voice in dict.fromkeys((wanted, wanted.split("-")[0])):
            if cls(program, voice)._run("a") is not None:
                return cls(program, voice)
        logger.warning("%s has no voice for the language %s: it reads with an English one", PROGRAM, language)
        return cls(program, "en")

    def speak(self, text: str) -> np.ndarray:
        """A text as sound: int16 samples `[T]` at `RATE`; none for a text without words."""
        words = re.sub(r"\[\[|\]\]", " ", text)  # espeak-ng reads phonemes between these
        if not any(char.isalnum() for char in words):
            return np.zeros(0, np.int16)
        sound = self._run(words)
        return np.zeros(0, np.int16) if sound is None else sound

    def _run(self, text: str) -> np.ndarray | None:
        command = [self.program, "-v", self.voice, "-s", "150", "-b", "1", "--stdin", "--stdout"]
        try:
            made = subprocess.run(command, input=text.encode("utf-8"), capture_output=True, timeout=SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            return None
        if made.returncode != 0 or len(made.stdout) <= 44:
            return None
        # A program that writes to a pipe cannot know the length beforehand, so the header's is wrong.
        with wave.open(io.BytesIO(made.stdout)) as file:
            if (file.getsampwidth(), file.getnchannels(), file.getframerate()) != (2, 1, RATE):
                return None
        return np.frombuffer(made.stdout[44 : len(made.stdout) // 2 * 2], np.int16)
