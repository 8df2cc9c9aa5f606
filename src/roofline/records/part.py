"""What the parts of a record have in common: they are frozen, take nothing unknown, and refuse with our errors."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from roofline.calls import listed
from roofline.errors import CalibrationError, CallError
from roofline.frozen import FrozenDict
from roofline.validation import describe_faults

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

FROZEN = AfterValidator(FrozenDict)
"""Marks a mapping that nobody can change once it is checked."""

EMPTY: FrozenDict[Any, Any] = FrozenDict()

NotNegative = Annotated[float, Field(ge=0)]


class _Checked(ModelMetaclass):
    """Makes parts whose constructors raise our errors; reading a file raises pydantic's, which the reader puts into words."""

    def __call__(cls, *unnamed: Any, **fields: Any) -> Any:
        model: type[BaseModel] = cls  # type: ignore[assignment]
        if unnamed:
            known = listed(tuple(model.model_fields))
            raise CallError(f"{cls.__name__} takes no value without a name; it has {known}.")
        try:
            return super().__call__(**fields)
        except ValidationError as error:
            raise CalibrationError(describe_faults(cls.__name__, error, model)) from None


class Part(BaseModel, metaclass=_Checked):
    """A part of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a {type(self).__name__} is frozen: {name} cannot be set; .model_copy(update=...) returns a changed copy.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} is frozen: {name} cannot be deleted.")
