"""selfscan's errors: one class for each way in which a clip can fail."""

from typing import Any


class SelfscanError(Exception):
    """Root of selfscan's errors. The message says what was expected, what was found and what to do."""


class UnreadableVideo(SelfscanError):
    """The file is not a video that can be decoded."""


class UnreadablePicture(SelfscanError):
    """The file is not a picture that can be decoded."""


class VideoTooLarge(SelfscanError):
    """The video exceeds the limits on size and length."""


class NoCamera(SelfscanError):
    """No camera was found, or it delivers no picture."""


class NoFaceFound(SelfscanError):
    """No face was found in (enough of) the clip."""


class SecondFace(SelfscanError):
    """A scan shows a second face for a second or longer.

    ``crowd`` has the faces of one frame of ``video``: ``selfscan.types.FaceTrack.crowd``.
    """

    def __init__(self, text: str, crowd: Any = None, video: Any = ""):
        super().__init__(text)
        self.crowd, self.video = crowd, video


class SecondPerson(SelfscanError):
    """A scan shows two people one after the other, or a consent clip shows somebody else."""


class TooFewFrames(SelfscanError):
    """Too few usable frames are left after quality checks."""


class UnknownImage(SelfscanError):
    """A scan does not hold an image that is to be left out, or holds no other."""


class ConsentMissing(SelfscanError):
    """A scan was started without the name of the person who consents."""


class ModelMissing(SelfscanError):
    """The file of a landmark or perceptual network is missing or unreadable."""


class UnknownContainer(SelfscanError):
    """The name of an output asks for a kind of file that is not written."""
