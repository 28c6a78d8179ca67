#include "tests/support/test_accelerator/accelerator_kernels.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <torch/library.h>

#include <optional>
#include <string>

#include "tests/support/test_accelerator/accelerator_allocator.h"

namespace ess::testing {
namespace {

constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

// The same memory, as the kernels see it.
at::Tensor HostView(const at::Tensor& tensor) {
  if (tensor.is_cpu()) return tensor;
  return at::from_blob(HostAddress(tensor.const_data_ptr()), tensor.sizes(), tensor.strides(),
                       at::TensorOptions().dtype(tensor.dtype()));
}

at::Tensor Empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout> layout, std::optional<at::Device> device,
                 std::optional<bool> pin_memory, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &TestAcceleratorAllocator(), kKeys,
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor EmptyStrided(at::IntArrayRef size, at::IntArrayRef stride,
                        std::optional<at::ScalarType> dtype, std::optional<at::Layout> layout,
                        std::optional<at::Device> device, std::optional<bool> pin_memory) {
  return at::detail::empty_strided_generic(size, stride, &TestAcceleratorAllocator(), kKeys,
                                           c10::dtype_or_default(dtype));
}

at::Tensor CopyFrom(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  HostView(to).copy_(HostView(from));
  return to;
}

const at::Tensor& Resize(const at::Tensor& tensor, at::IntArrayRef size,
                         std::optional<at::MemoryFormat> format) {
  const size_t bytes =
      at::detail::computeStorageNbytesContiguous(size, tensor.itemsize(), tensor.storage_offset());
  c10::StorageImpl& storage = *tensor.storage().unsafeGetStorageImpl();
  if (bytes > storage.nbytes()) {
    AcceleratorAllocator& allocator = TestAcceleratorAllocator();
    c10::DataPtr larger = allocator.allocate(bytes);
    if (storage.nbytes() > 0) allocator.copy_data(larger.get(), storage.data(), storage.nbytes());
    storage.set_data_ptr(std::move(larger));
    storage.set_nbytes(bytes);
  }
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  return tensor;
}

at::Tensor CopyFromAndResize(const at::Tensor& from, const at::Tensor& to) {
  if (from.sizes() != to.sizes()) Resize(to, from.sizes(), std::nullopt);
  return CopyFrom(from, to, /*non_blocking=*/false);
}

at::Scalar LocalScalarDense(const at::Tensor& tensor) {
  return at::_local_scalar_dense(HostView(tensor));
}

void CheckOnDevice(const std::string& operation, const at::Tensor& operand) {
  const bool scalar = operand.defined() && operand.is_cpu() && operand.dim() == 0;
  TORCH_CHECK(!operand.defined() || operand.is_privateuseone() || scalar, operation,
              ": all operands are expected on ", kTestAccelerator, ", but one of shape ",
              operand.sizes(), " is on ", operand.device());
}

// The CPU's kernel, on copies. cpu_fallback itself takes operands of any device.
void RunOnCpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const std::string& name = op.schema().name();
  for (const c10::IValue& argument : torch::jit::last(*stack, op.schema().arguments().size())) {
    if (argument.isTensor()) CheckOnDevice(name, argument.toTensor());
    if (argument.isTensorList()) {
      for (const at::Tensor& operand : argument.toTensorVector()) CheckOnDevice(name, operand);
    }
    if (argument.isOptionalTensorList()) {
      for (const auto& operand : argument.toOptionalTensorVector()) {
        if (operand) CheckOnDevice(name, *operand);
      }
    }
  }
  at::native::cpu_fallback(op, stack, /*error_on_views=*/true);
}

// Convolutions look for a kernel of this name, and never for a fallback.
at::Tensor Convolution(const at::Tensor& input, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias, at::IntArrayRef stride,
                       at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                       at::IntArrayRef output_padding, int64_t groups) {
  for (const at::Tensor& operand : {input, weight, bias.value_or(at::Tensor())}) {
    CheckOnDevice("convolution", operand);
  }
  const bool has_bias = bias && bias->defined();
  return at::convolution(HostView(input), HostView(weight),
                         has_bias ? HostView(*bias) : at::Tensor(), stride, padding, dilation,
                         transposed, output_padding, groups)
      .to(input.device());
}

}  // namespace

void RegisterAcceleratorKernels() {
  static torch::Library every_namespace(torch::Library::IMPL, "_", c10::DispatchKey::PrivateUse1,
                                        __FILE__, __LINE__);
  every_namespace.fallback(torch::CppFunction::makeFromBoxedFunction<&RunOnCpu>());

  static torch::Library aten(torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1, __FILE__,
                             __LINE__);
  aten.impl("empty.memory_format", TORCH_FN(Empty));
  aten.impl("empty_strided", TORCH_FN(EmptyStrided));
  aten.impl("_copy_from", TORCH_FN(CopyFrom));
  aten.impl("_copy_from_and_resize", TORCH_FN(CopyFromAndResize));
  aten.impl("_local_scalar_dense", TORCH_FN(LocalScalarDense));
  aten.impl("resize_", TORCH_FN(Resize));
  aten.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  aten.impl("view", TORCH_FN(at::native::view));
  aten.impl("view_as_real", TORCH_FN(at::native::view_as_real));
  aten.impl("view_as_complex", TORCH_FN(at::native::view_as_complex));
  aten.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  aten.impl("convolution_overrideable", TORCH_FN(Convolution));
  aten.impl("unfold", TORCH_FN(at::native::unfold));
}

}  // namespace ess::testing
