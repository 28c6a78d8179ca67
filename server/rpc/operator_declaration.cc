#include "server/rpc/operator_declaration.h"

#include <optional>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/rpc/measure_codec.h"

namespace ess::rpc {
namespace {

template <typename... Arguments>
absl::Status Invalid(fmt::format_string<Arguments...> text, Arguments&&... arguments) {
  return absl::InvalidArgumentError(fmt::format(text, std::forward<Arguments>(arguments)...));
}

const char* ClassName(v1::OperatorClass operator_class) {
  switch (operator_class) {
    case v1::OPERATOR_CLASS_DENSE:
      return "DenseOperator";
    case v1::OPERATOR_CLASS_DIAGONAL_RECURRENCE:
      return "DiagonalRecurrence";
    case v1::OPERATOR_CLASS_DELTA_RECURRENCE:
      return "DeltaRecurrence";
    case v1::OPERATOR_CLASS_DIAGONAL_PLUS_RANK_ONE:
      return "DiagonalPlusRankOne";
    case v1::OPERATOR_CLASS_GENERAL_RECURRENCE:
      return "GeneralRecurrence";
    case v1::OPERATOR_CLASS_CONVOLUTION:
      return "Convolution";
    case v1::OPERATOR_CLASS_BANDED:
      return "BandedOperator";
    default:
      return nullptr;
  }
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

absl::StatusOr<std::vector<operators::ArgumentDeclaration>> DecodeArguments(
    const v1::OperatorDeclaration& declaration) {
  std::vector<operators::ArgumentDeclaration> arguments;
  for (int i = 0; i < declaration.arguments_size(); ++i) {
    const v1::OperatorArgument& argument = declaration.arguments(i);
    const std::optional<c10::ScalarType> dtype = DecodeDtype(argument.dtype());
    if (!dtype) {
      return Invalid("arguments[{}].dtype: {} is not an OperatorDtype", i,
                     static_cast<int>(argument.dtype()));
    }
    arguments.push_back({.name = argument.name(),
                         .dtype = *dtype,
                         .shape = {argument.shape().begin(), argument.shape().end()}});
  }
  return arguments;
}

// REQUIRES: no dimension is negative.
absl::Status CheckBytes(const std::vector<operators::ArgumentDeclaration>& arguments,
                        int64_t limit) {
  int64_t total = 0;
  bool overflow = false;
  for (const operators::ArgumentDeclaration& argument : arguments) {
    int64_t bytes = static_cast<int64_t>(c10::elementSize(argument.dtype));
    for (const int64_t size : argument.shape) {
      overflow |= __builtin_mul_overflow(bytes, size, &bytes);
    }
    overflow |= __builtin_add_overflow(total, bytes, &total);
  }
  if (!overflow && total <= limit) return absl::OkStatus();
  return Invalid("arguments: {} bytes in one call; the limit is {} (max_operator_bytes)",
                 overflow ? "over 2^63" : std::to_string(total), limit);
}

absl::Status CheckSizes(const OperatorLimits& limits, const OperatorsJob& job) {
  if (job.shape.length > limits.max_operator_length) {
    return Invalid("arguments: operators of {} positions; the limit is {} (max_operator_length)",
                   job.shape.length, limits.max_operator_length);
  }
  if (job.shape.head_count > limits.max_operator_batch) {
    return Invalid("arguments: {} operators in one call; the limit is {} (max_operator_batch)",
                   job.shape.head_count, limits.max_operator_batch);
  }
  return CheckBytes(job.arguments, limits.max_operator_bytes);
}

absl::Status CheckResult(const OperatorLimits& limits, const OperatorsJob& job) {
  int64_t values = 0;
  for (const Measure& measure : job.measures) {
    values += ValueCount(job.reduction, job.shape.head_count,
                         static_cast<int64_t>(job.positions.size()), measure);
  }
  const int64_t bytes = values * ValueBytes(job.options);
  if (bytes <= limits.max_result_bytes) return absl::OkStatus();
  return Invalid(
      "measures: the answer would have {} bytes; the limit is {} (max_result_bytes); ask for fewer "
      "measures, operators or positions",
      bytes, limits.max_result_bytes);
}

}  // namespace

absl::StatusOr<OperatorsJob> DecodeOperatorDeclaration(const v1::OperatorDeclaration& declaration,
                                                       const OperatorLimits& limits) {
  const char* class_name = ClassName(declaration.operator_class());
  if (class_name == nullptr) {
    return Invalid("operator_class: {} is not an OperatorClass",
                   static_cast<int>(declaration.operator_class()));
  }
  if (!v1::ReadOrder_IsValid(declaration.read_order())) {
    return Invalid("read_order: {} is not a ReadOrder", static_cast<int>(declaration.read_order()));
  }
  OperatorsJob job;
  job.class_name = class_name;
  job.read_before = declaration.read_order() == v1::READ_ORDER_BEFORE;
  ESS_ASSIGN_OR_RETURN(job.arguments, DecodeArguments(declaration));
  ESS_ASSIGN_OR_RETURN(job.shape,
                       operators::CheckDeclaration(job.class_name, job.arguments, job.read_before));
  ESS_RETURN_IF_ERROR(CheckSizes(limits, job));
  ESS_ASSIGN_OR_RETURN(job.measures,
                       DecodeMeasures(declaration.measures(), limits.default_measures));
  ESS_ASSIGN_OR_RETURN(job.options, DecodeEssOptions(declaration.options()));
  ESS_ASSIGN_OR_RETURN(job.reduction, DecodeReduction(declaration.options()));
  ESS_ASSIGN_OR_RETURN(const IndexSelection positions,
                       DecodeSelection(declaration.positions().ranges(), "positions"));
  ESS_RETURN_IF_ERROR(CheckExists(positions, job.shape.length, "positions", "positions"));
  job.positions = SelectedIndices(positions, job.shape.length);
  ESS_RETURN_IF_ERROR(CheckResult(limits, job));
  job.max_reference_work = limits.max_reference_work;
  return job;
}

}  // namespace ess::rpc
