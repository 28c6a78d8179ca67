#include "server/operators/operator_arguments.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"
#include "server/operators/head_array.h"
#include "server/operators/operator_classes.h"

namespace ess::operators {
namespace {

template <typename... Values>
absl::Status Invalid(fmt::format_string<Values...> format, Values&&... values) {
  return absl::InvalidArgumentError(fmt::format(format, std::forward<Values>(values)...));
}

absl::StatusOr<const OperatorClass*> FindClass(std::string_view name) {
  std::vector<std::string_view> names;
  for (const OperatorClass& known : AllOperatorClasses()) {
    if (known.name == name) return &known;
    names.push_back(known.name);
  }
  return Invalid("operator class {} is unknown; it is one of {}", name, fmt::join(names, ", "));
}

// The axes of an argument as its documentation writes them: "[..., L, N or 1]".
std::string AxesText(const OperatorArgument& argument) {
  std::string text = "[...";
  for (const char axis : argument.axes) {
    text += axis == 'G' ? ", N or 1" : fmt::format(", {}", axis);
  }
  return text + "]";
}

absl::Status CheckNames(const OperatorClass& op, std::span<const ArgumentDeclaration> arguments) {
  std::set<std::string_view> seen;
  for (const ArgumentDeclaration& argument : arguments) {
    const auto known = std::any_of(op.arguments.begin(), op.arguments.end(),
                                   [&](const auto& a) { return a.name == argument.name; });
    if (!known) {
      std::vector<std::string_view> names;
      for (const OperatorArgument& a : op.arguments) names.push_back(a.name);
      return Invalid("{} has no argument '{}'; it has {}", op.name, argument.name,
                     fmt::join(names, ", "));
    }
    if (!seen.insert(argument.name).second) {
      return Invalid("{}.{} is given twice", op.name, argument.name);
    }
  }
  for (const OperatorArgument& argument : op.arguments) {
    if (!argument.optional && !seen.contains(argument.name)) {
      return Invalid("{}.{} is missing; it is {}", op.name, argument.name, AxesText(argument));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckDtype(const std::string& label, const OperatorArgument& argument,
                        c10::ScalarType dtype) {
  if (dtype == at::kFloat || dtype == at::kDouble) return absl::OkStatus();
  if (argument.complex && (dtype == at::kComplexFloat || dtype == at::kComplexDouble)) {
    return absl::OkStatus();
  }
  return Invalid("{} is {}; it is float32 or float64{}", label, c10::toString(dtype),
                 argument.complex ? ", complex64 or complex128" : "");
}

absl::Status CheckRank(const std::string& label, const OperatorArgument& argument,
                       const std::vector<int64_t>& shape) {
  if (shape.size() < argument.axes.size()) {
    return Invalid("{} has shape {}; it is {}", label, shape, AxesText(argument));
  }
  if (shape.size() > kMaxDimensions) {
    return Invalid("{} has {} dimensions; the limit is {}", label, shape.size(), kMaxDimensions);
  }
  if (std::any_of(shape.begin(), shape.end(), [](int64_t size) { return size < 1; })) {
    return Invalid("{} has shape {}; every dimension is at least 1", label, shape);
  }
  return absl::OkStatus();
}

// The sizes of the axes so far, and which argument said so.
struct AxisSizes {
  struct Known {
    int64_t size;
    std::string label;
  };
  std::map<char, Known> known;

  absl::Status Add(char axis, int64_t size, const std::string& label) {
    if (axis == 'G') {
      if (size == 1) return absl::OkStatus();
      axis = 'N';
    }
    const auto [entry, added] = known.try_emplace(axis, Known{size, label});
    if (entry->second.size == size) return absl::OkStatus();
    return Invalid("{} has {} = {}, but {} has {}", label, axis, size, entry->second.label,
                   entry->second.size);
  }

  // Once every other axis is known.
  absl::Status ResolveTaps() {
    const auto taps = known.find('K');
    if (taps == known.end()) return absl::OkStatus();
    const auto [length, added] = known.try_emplace('L', taps->second);
    if (taps->second.size <= length->second.size) return absl::OkStatus();
    return Invalid("{} has {} taps, more than L = {} of {}", taps->second.label, taps->second.size,
                   length->second.size, length->second.label);
  }
};

absl::StatusOr<OperatorShape> CheckShapes(const OperatorClass& op,
                                          std::span<const ArgumentDeclaration> declared) {
  OperatorShape shape;
  AxisSizes sizes;
  std::vector<std::string> leading;
  bool broadcasts = true;
  for (const OperatorArgument& argument : op.arguments) {
    const auto found = std::find_if(declared.begin(), declared.end(),
                                    [&](const auto& d) { return d.name == argument.name; });
    if (found == declared.end()) continue;
    const std::string label = fmt::format("{}.{}", op.name, argument.name);
    ESS_RETURN_IF_ERROR(CheckDtype(label, argument, found->dtype));
    ESS_RETURN_IF_ERROR(CheckRank(label, argument, found->shape));
    const auto own = found->shape.end() - argument.axes.size();
    for (size_t axis = 0; axis < argument.axes.size(); ++axis) {
      ESS_RETURN_IF_ERROR(sizes.Add(argument.axes[axis], own[axis], label));
    }
    const std::vector<int64_t> batch(found->shape.begin(), own);
    leading.push_back(fmt::format("{} {}", argument.name, batch));
    const auto broadcast = BroadcastShapes(shape.batch_shape, batch);
    broadcasts = broadcasts && broadcast.has_value();
    shape.batch_shape = broadcast.value_or(shape.batch_shape);
  }
  ESS_RETURN_IF_ERROR(sizes.ResolveTaps());
  if (!broadcasts) {
    return Invalid("{}: leading dimensions do not broadcast: {}", op.name,
                   fmt::join(leading, ", "));
  }
  for (const int64_t size : shape.batch_shape) {
    if (size > kMaxHeadCount / shape.head_count) {
      return Invalid("{}: leading dimensions {} make more than {} operators", op.name,
                     shape.batch_shape, kMaxHeadCount);
    }
    shape.head_count *= size;
  }
  shape.length = sizes.known.at('L').size;
  return shape;
}

absl::StatusOr<OperatorShape> CheckDeclared(const OperatorClass& op,
                                            std::span<const ArgumentDeclaration> arguments,
                                            bool read_before) {
  if (read_before && !op.recurrence) {
    return Invalid("{} is no recurrence, so it cannot be read before the step", op.name);
  }
  ESS_RETURN_IF_ERROR(CheckNames(op, arguments));
  return CheckShapes(op, arguments);
}

std::vector<int64_t> IndexOf(int64_t element, at::IntArrayRef shape) {
  std::vector<int64_t> index(shape.size());
  for (size_t axis = shape.size(); axis-- > 0;) {
    index[axis] = element % shape[axis];
    element /= shape[axis];
  }
  return index;
}

// The first element, in row-major order, that is not finite.
absl::Status CheckFinite(const std::string& label, const at::Tensor& tensor) {
  const bool complex = tensor.is_complex();
  const at::Tensor parts = complex ? at::view_as_real(tensor.resolve_conj()) : tensor;
  const at::Tensor values = parts.to(at::kCPU).contiguous();
  return AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "CheckFinite", [&]() -> absl::Status {
    const scalar_t* data = values.const_data_ptr<scalar_t>();
    const scalar_t* end = data + values.numel();
    const scalar_t* bad = std::find_if_not(data, end, [](scalar_t x) { return std::isfinite(x); });
    if (bad == end) return absl::OkStatus();
    const int64_t element = (bad - data) / (complex ? 2 : 1);
    return Invalid("{} is {} at {}", label, *bad, IndexOf(element, tensor.sizes()));
  });
}

absl::Status CheckLowerTriangular(const std::string& label, const at::Tensor& tensor) {
  const at::Tensor matrices = tensor.to(at::kCPU).contiguous();
  const int64_t L = tensor.size(-1);
  return AT_DISPATCH_FLOATING_TYPES(
      matrices.scalar_type(), "CheckLowerTriangular", [&]() -> absl::Status {
        const scalar_t* data = matrices.const_data_ptr<scalar_t>();
        for (int64_t row = 0; row < matrices.numel() / L; ++row) {
          const scalar_t* after = data + row * L + row % L + 1;
          const scalar_t* end = data + (row + 1) * L;
          const scalar_t* bad = std::find_if(after, end, [](scalar_t x) { return x != 0; });
          if (bad == end) continue;
          return Invalid("{} is {} at {}, above the diagonal", label, *bad,
                         IndexOf(bad - data, tensor.sizes()));
        }
        return absl::OkStatus();
      });
}

absl::Status CheckValues(const OperatorClass& op, const OperatorArguments& arguments) {
  for (const auto& [name, tensor] : arguments.tensors) {
    const std::string label = fmt::format("{}.{}", op.name, name);
    ESS_RETURN_IF_ERROR(CheckFinite(label, tensor));
    if (op.name == "DenseOperator") ESS_RETURN_IF_ERROR(CheckLowerTriangular(label, tensor));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<OperatorShape> CheckDeclaration(std::string_view class_name,
                                               std::span<const ArgumentDeclaration> arguments,
                                               bool read_before) {
  ESS_ASSIGN_OR_RETURN(const OperatorClass* op, FindClass(class_name));
  return CheckDeclared(*op, arguments, read_before);
}

absl::StatusOr<BuiltOperator> BuildOperator(std::string_view class_name,
                                            const OperatorArguments& arguments) {
  ESS_ASSIGN_OR_RETURN(const OperatorClass* op, FindClass(class_name));
  std::vector<ArgumentDeclaration> declared;
  for (const auto& [name, tensor] : arguments.tensors) {
    declared.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  }
  ESS_ASSIGN_OR_RETURN(OperatorShape shape, CheckDeclared(*op, declared, arguments.read_before));
  BuiltOperator built{.op = nullptr, .batch_shape = std::move(shape.batch_shape)};
  ESS_RETURN_IF_ERROR(CatchTorch("operator from its arguments", [&]() -> absl::Status {
    ESS_RETURN_IF_ERROR(CheckValues(*op, arguments));
    built.op = op->build(arguments);
    return absl::OkStatus();
  }));
  return built;
}

}  // namespace ess::operators
