#include "server/rpc/operator_declaration.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "server/base/status_macros.h"
#include "server/rpc/measure_codec.h"

namespace ess::rpc {
namespace {

constexpr size_t kMaxLeadingDimensions = 16;

// Axes of an argument, one letter each; a lower-case 'n' may also be 1.
struct ArgumentForm {
  std::string_view name;
  std::string_view axes;
  bool optional = false;
};

struct ClassForm {
  v1::OperatorClass value;
  std::string_view name;
  bool is_recurrence = false;
  bool may_be_complex = false;
  std::array<ArgumentForm, 5> arguments;  // Unused ones have no name.
};

constexpr std::array kClasses = {
    ClassForm{v1::OPERATOR_CLASS_DENSE, "DenseOperator", false, false, {{{"T", "LL"}}}},
    ClassForm{v1::OPERATOR_CLASS_DIAGONAL_RECURRENCE,
              "DiagonalRecurrence",
              true,
              true,
              {{{"a", "Ln"}, {"b", "LN"}, {"c", "LN"}}}},
    ClassForm{v1::OPERATOR_CLASS_DELTA_RECURRENCE,
              "DeltaRecurrence",
              true,
              false,
              {{{"alpha", "L"}, {"beta", "L"}, {"k", "LN"}, {"c", "LN"}}}},
    ClassForm{v1::OPERATOR_CLASS_DIAGONAL_PLUS_RANK_ONE,
              "DiagonalPlusRankOne",
              true,
              false,
              {{{"w", "LN"}, {"p", "LN"}, {"q", "LN"}, {"k", "LN"}, {"c", "LN"}}}},
    ClassForm{v1::OPERATOR_CLASS_GENERAL_RECURRENCE,
              "GeneralRecurrence",
              true,
              false,
              {{{"A", "LNN"}, {"b", "LN"}, {"c", "LN"}}}},
    ClassForm{v1::OPERATOR_CLASS_CONVOLUTION,
              "Convolution",
              false,
              false,
              {{{"h", "L"}, {"gate_out", "L", true}, {"gate_in", "L", true}}}},
    ClassForm{v1::OPERATOR_CLASS_BANDED,
              "BandedOperator",
              false,
              false,
              {{{"band", "LW"}, {"sinks", "LS", true}}}},
};

template <typename... Arguments>
absl::Status Invalid(fmt::format_string<Arguments...> text, Arguments&&... arguments) {
  return absl::InvalidArgumentError(fmt::format(text, std::forward<Arguments>(arguments)...));
}

// "[..., L, N]"
std::string FormText(const ArgumentForm& form) {
  std::string text = "[...";
  for (const char axis : form.axes) {
    text += axis == 'n' ? ", N or 1" : fmt::format(", {}", axis);
  }
  return text + "]";
}

const ClassForm* FindClass(v1::OperatorClass value) {
  const auto* found = std::find_if(kClasses.begin(), kClasses.end(),
                                   [value](const ClassForm& form) { return form.value == value; });
  return found == kClasses.end() ? nullptr : found;
}

const ArgumentForm* FindArgument(const ClassForm& form, std::string_view name) {
  for (const ArgumentForm& argument : form.arguments) {
    if (!argument.name.empty() && argument.name == name) return &argument;
  }
  return nullptr;
}

std::string ArgumentNames(const ClassForm& form) {
  std::string names;
  for (const ArgumentForm& argument : form.arguments) {
    if (argument.name.empty()) continue;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", argument.name);
  }
  return names;
}

std::optional<c10::ScalarType> DecodeDtype(v1::OperatorDtype dtype) {
  switch (dtype) {
    case v1::OPERATOR_DTYPE_FLOAT32:
      return c10::ScalarType::Float;
    case v1::OPERATOR_DTYPE_FLOAT64:
      return c10::ScalarType::Double;
    case v1::OPERATOR_DTYPE_COMPLEX64:
      return c10::ScalarType::ComplexFloat;
    case v1::OPERATOR_DTYPE_COMPLEX128:
      return c10::ScalarType::ComplexDouble;
    default:
      return std::nullopt;
  }
}

// Name, dtype and number of dimensions.
absl::StatusOr<OperatorArgument> DecodeArgument(const v1::OperatorArgument& message,
                                                const ClassForm& form, int index) {
  const std::string_view name = message.name();
  const ArgumentForm* argument = FindArgument(form, name);
  if (argument == nullptr) {
    return Invalid("arguments[{}].name: {} has no argument '{}'; it has {}", index, form.name,
                   name.substr(0, 64), ArgumentNames(form));
  }
  const std::optional<c10::ScalarType> dtype = DecodeDtype(message.dtype());
  if (!dtype) {
    return Invalid("arguments[{}].dtype: {} of '{}' is not an OperatorDtype", index,
                   static_cast<int>(message.dtype()), name);
  }
  if (c10::isComplexType(*dtype) && !form.may_be_complex) {
    return Invalid("arguments[{}].dtype: '{}' is complex; only DiagonalRecurrence may be", index,
                   name);
  }
  const size_t rank = message.shape_size();
  const size_t axes = argument->axes.size();
  if (rank < axes || rank > axes + kMaxLeadingDimensions) {
    return Invalid(
        "arguments[{}].shape: '{}' has shape [{}]; it is {} with at most {} leading dimensions",
        index, name, fmt::join(message.shape(), ", "), FormText(*argument), kMaxLeadingDimensions);
  }
  for (const int64_t size : message.shape()) {
    if (size >= 1) continue;
    return Invalid("arguments[{}].shape: '{}' has shape [{}]; every dimension is at least 1", index,
                   name, fmt::join(message.shape(), ", "));
  }
  const auto leading_end = message.shape().end() - static_cast<int>(axes);
  return OperatorArgument{.name = std::string(name),
                          .dtype = *dtype,
                          .batch_shape = {message.shape().begin(), leading_end},
                          .shape = {leading_end, message.shape().end()}};
}

// Equal letters, equal sizes.
absl::Status CheckAxes(const std::vector<OperatorArgument>& arguments, const ClassForm& form) {
  std::map<char, std::pair<int64_t, std::string>> sizes;  // And who said so.
  for (const bool lenient : {false, true}) {              // 'n' is compared once N is known.
    for (const OperatorArgument& argument : arguments) {
      const std::string_view axes = FindArgument(form, argument.name)->axes;
      for (size_t axis = 0; axis < axes.size(); ++axis) {
        if ((axes[axis] == 'n') != lenient) continue;
        const int64_t size = argument.shape[axis];
        if (lenient && size == 1) continue;
        const char letter = lenient ? 'N' : axes[axis];
        const auto& [known, source] = sizes.try_emplace(letter, size, argument.name).first->second;
        if (size == known) continue;
        return Invalid("arguments: '{}' has {} = {}, but '{}' has {}", argument.name, letter, size,
                       source, known);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckArgumentSet(const std::vector<OperatorArgument>& arguments,
                              const ClassForm& form) {
  for (const ArgumentForm& argument : form.arguments) {
    if (argument.name.empty()) continue;
    const auto count =
        std::count_if(arguments.begin(), arguments.end(),
                      [&](const OperatorArgument& given) { return given.name == argument.name; });
    if (count > 1) return Invalid("arguments: '{}' is there twice", argument.name);
    if (count == 0 && !argument.optional) {
      return Invalid("arguments: {} needs '{}'; it has {}", form.name, argument.name,
                     ArgumentNames(form));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckBytes(const std::vector<OperatorArgument>& arguments, int64_t limit) {
  int64_t total = 0;
  bool overflow = false;
  for (const OperatorArgument& argument : arguments) {
    int64_t bytes = static_cast<int64_t>(c10::elementSize(argument.dtype));
    for (const int64_t size : argument.FullShape()) {
      overflow |= __builtin_mul_overflow(bytes, size, &bytes);
    }
    overflow |= __builtin_add_overflow(total, bytes, &total);
  }
  if (!overflow && total <= limit) return absl::OkStatus();
  return Invalid("arguments: {} bytes in one call; the limit is {} (max_operator_bytes)",
                 overflow ? "more than 2^63" : std::to_string(total), limit);
}

// The leading dimensions of all arguments together. REQUIRES: CheckBytes is OK.
absl::Status Broadcast(const OperatorLimits& limits, OperatorsJob& job) {
  std::vector<int64_t>& batch = job.batch_shape;
  for (const OperatorArgument& argument : job.arguments) {
    const std::vector<int64_t>& shape = argument.batch_shape;
    if (shape.size() > batch.size()) batch.insert(batch.begin(), shape.size() - batch.size(), 1);
    for (size_t d = 0; d < shape.size(); ++d) {
      int64_t& size = batch[batch.size() - shape.size() + d];
      if (size == 1) size = shape[d];
      if (shape[d] == 1 || shape[d] == size) continue;
      return Invalid("arguments: the leading dimensions [{}] of '{}' do not broadcast with [{}]",
                     fmt::join(shape, ", "), argument.name, fmt::join(batch, ", "));
    }
  }
  for (const int64_t size : batch) {
    if (__builtin_mul_overflow(job.batch_count, size, &job.batch_count) ||
        job.batch_count > limits.max_operator_batch) {
      return Invalid(
          "arguments: the leading dimensions broadcast to [{}]; the limit is {} operators "
          "(max_operator_batch)",
          fmt::join(batch, ", "), limits.max_operator_batch);
    }
  }
  return absl::OkStatus();
}

absl::Status DecodeArguments(const v1::OperatorDeclaration& declaration, const ClassForm& form,
                             const OperatorLimits& limits, OperatorsJob& job) {
  for (int i = 0; i < declaration.arguments_size(); ++i) {
    ESS_ASSIGN_OR_RETURN(OperatorArgument argument,
                         DecodeArgument(declaration.arguments(i), form, i));
    job.arguments.push_back(std::move(argument));
    ESS_RETURN_IF_ERROR(job.arguments.size() > form.arguments.size()
                            ? Invalid("arguments: {} is too many; {} has {}", job.arguments.size(),
                                      form.name, ArgumentNames(form))
                            : absl::OkStatus());
  }
  ESS_RETURN_IF_ERROR(CheckArgumentSet(job.arguments, form));
  ESS_RETURN_IF_ERROR(CheckAxes(job.arguments, form));
  job.length = job.arguments.front().shape.front();  // Every argument's first axis is L.
  if (job.length > limits.max_operator_length) {
    return Invalid(
        "arguments: the operator has {} positions; the limit is {} (max_operator_length)",
        job.length, limits.max_operator_length);
  }
  ESS_RETURN_IF_ERROR(CheckBytes(job.arguments, limits.max_operator_bytes));
  return Broadcast(limits, job);
}

absl::Status CheckWork(const OperatorLimits& limits, const OperatorsJob& job) {
  const double work =
      ReferenceWork(job.measures, job.length, job.positions) * static_cast<double>(job.batch_count);
  if (work > limits.max_reference_work) {
    return Invalid(
        "measures: these need {:.2g} floating point operations by the reference route (an SVD at "
        "every position); the limit is {:.2g} (max_reference_work); ask for tolerance or "
        "head_relative, or fewer operators or positions",
        work, limits.max_reference_work);
  }
  int64_t values = 0;
  for (const Measure& measure : job.measures) {
    values += ValueCount(job.reduction, job.batch_count, static_cast<int64_t>(job.positions.size()),
                         measure);
  }
  if (const int64_t bytes = values * ValueBytes(job.options); bytes > limits.max_result_bytes) {
    return Invalid(
        "measures: the answer would have {} bytes; the limit is {} (max_result_bytes); ask for "
        "fewer measures, operators or positions",
        bytes, limits.max_result_bytes);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<OperatorsJob> DecodeOperatorDeclaration(const v1::OperatorDeclaration& declaration,
                                                       const OperatorLimits& limits) {
  const ClassForm* form = FindClass(declaration.operator_class());
  if (form == nullptr) {
    return Invalid("operator_class: {} is not an OperatorClass",
                   static_cast<int>(declaration.operator_class()));
  }
  OperatorsJob job;
  job.class_name = form->name;
  if (!v1::ReadOrder_IsValid(declaration.read_order())) {
    return Invalid("read_order: {} is not a ReadOrder", static_cast<int>(declaration.read_order()));
  }
  job.reads_before = declaration.read_order() == v1::READ_ORDER_BEFORE;
  if (job.reads_before && !form->is_recurrence) {
    return Invalid("read_order: READ_ORDER_BEFORE is for recurrences; {} is none", form->name);
  }
  ESS_RETURN_IF_ERROR(DecodeArguments(declaration, *form, limits, job));
  ESS_ASSIGN_OR_RETURN(job.measures,
                       DecodeMeasures(declaration.measures(), limits.default_measures));
  for (const Measure& measure : job.measures) {
    if (measure.kind != Measure::Kind::kCausal || form->is_recurrence) continue;
    return Invalid("measures: causal is for recurrences; {} is none", form->name);
  }
  ESS_ASSIGN_OR_RETURN(job.options, DecodeEssOptions(declaration.options()));
  ESS_ASSIGN_OR_RETURN(job.reduction, DecodeReduction(declaration.options()));
  ESS_ASSIGN_OR_RETURN(const IndexSelection positions,
                       DecodeSelection(declaration.positions().ranges(), "positions"));
  ESS_RETURN_IF_ERROR(CheckExists(positions, job.length, "positions", "positions"));
  job.positions = SelectedIndices(positions, job.length);
  ESS_RETURN_IF_ERROR(CheckWork(limits, job));
  return job;
}

}  // namespace ess::rpc
