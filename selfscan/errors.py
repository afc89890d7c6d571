"""Everything that can go wrong with a clip, each with what to do about it."""


class SelfscanError(Exception):
    """Root of selfscan's errors. The message says what was expected, what came and what to do."""


class UnreadableVideo(SelfscanError):
    """The file is not a video that can be decoded."""


class UnreadablePicture(SelfscanError):
    """The file is not a picture that can be decoded."""


class VideoTooLarge(SelfscanError):
    """The video exceeds the limits on size and length."""


class NoCamera(SelfscanError):
    """There is no camera, or it gives no picture."""


class NoFaceFound(SelfscanError):
    """No face was found in (enough of) the clip."""


class SecondFace(SelfscanError):
    """A scan shows a second stable face."""


class SecondPerson(SelfscanError):
    """A scan shows two people one after the other, or a consent clip shows somebody else."""


class TooFewFrames(SelfscanError):
    """Too few usable frames are left after quality checks."""


class ConsentMissing(SelfscanError):
    """A scan needs the name of the person who is shown or has consented."""


class ModelMissing(SelfscanError):
    """A landmark or perceptual network is not where it should be."""
