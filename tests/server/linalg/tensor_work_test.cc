// What the tensor route still does after its token is cancelled, counted in calls of LibTorch and
// in their work, which no busy machine changes.
#include <ATen/ExpandUtils.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "server/base/serial_torch.h"
#include "tests/support/tensor_cases.h"

namespace ess::linalg {
namespace {

// Cancels its token at one of this thread's calls of LibTorch, and counts what follows. One at a
// time.
class CancelAtCall {
 public:
  explicit CancelAtCall(int64_t call) : left_(call) {
    current_ = this;
    handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(&CancelAtCall::OnCall)
                                             .needsInputs(true)
                                             .scopes({at::RecordScope::FUNCTION}));
  }
  ~CancelAtCall() {
    at::removeCallback(handle_);
    current_ = nullptr;
  }
  CancelAtCall(const CancelAtCall&) = delete;
  CancelAtCall& operator=(const CancelAtCall&) = delete;

  const CancellationToken& token() const { return token_; }
  int64_t calls_after() const { return -left_; }
  double work_after() const { return work_after_; }

 private:
  static std::unique_ptr<at::ObserverContext> OnCall(const at::RecordFunction& call) {
    if (--current_->left_ == 0) current_->token_.Cancel();
    try {
      if (current_->left_ < 0) current_->work_after_ += WorkOf(call);
    } catch (const c10::Error&) {  // LibTorch records no inputs of a few calls.
    }
    return nullptr;
  }

  // In floating point operations of a matrix product; an entry of any other result takes the time
  // of some kPerEntry of these.
  static double WorkOf(const at::RecordFunction& call) {
    constexpr double kPerEntry = 50;
    const std::string_view name = call.name();
    // No entry is read.
    for (const char* view : {"stride", "slice", "select", "view", "expand", "permute", "transpose",
                             "unsqueeze", "diagonal", "numpy_T"}) {
      if (name == "aten::index_select") break;
      if (name.find(view) != std::string_view::npos) return 0;
    }
    std::vector<at::Tensor> tensors;
    for (const c10::IValue& input : call.inputs()) {
      if (input.isTensor() && input.toTensor().defined()) tensors.push_back(input.toTensor());
      if (input.isTensorList()) {
        for (const at::Tensor& tensor : input.toTensorVector()) tensors.push_back(tensor);
      }
    }
    if (tensors.empty()) return 0;
    if (name.find("bmm") != std::string_view::npos) {
      const size_t left = tensors.size() == 2 ? 0 : 1;  // baddbmm has what it adds to before them.
      return 2.0 * static_cast<double>(tensors[left].numel()) *
             static_cast<double>(tensors[left + 1].size(2));
    }
    std::vector<int64_t> sizes = tensors[0].sizes().vec();
    for (const at::Tensor& tensor : tensors) {
      if (at::are_expandable(sizes, tensor.sizes())) sizes = at::infer_size(sizes, tensor.sizes());
    }
    return kPerEntry * static_cast<double>(c10::multiply_integers(sizes));
  }

  static thread_local CancelAtCall* current_;
  CancellationToken token_;
  at::CallbackHandle handle_ = 0;
  int64_t left_;  // Calls until the token is cancelled.
  double work_after_ = 0;
};

thread_local CancelAtCall* CancelAtCall::current_ = nullptr;

TEST(TensorWorkTest, LittleIsDoneAfterACancelHoweverLargeTheBudget) {
  constexpr int64_t kLength = 512;
  constexpr int64_t kHeads = 24;
  // A tenth of a second, at the slow end.
  constexpr double kMostWork = 3e9;
  constexpr int64_t kMostCalls = 4000;
  const SerialTorch serial;
  const at::Tensor maps = at::tensor(MakeTestOperator("attention_g1", kLength), at::kDouble)
                              .view({1, kLength, kLength})
                              .expand({kHeads, kLength, kLength});
  const std::vector<TensorSpectraRequest> requests = {
      {.tolerances = {std::vector<double>(kHeads, 1e-2)}},
      {.entropies = true},
      {.spectral_norms = true},
      {.fractions = {1e-2}}};
  for (size_t r = 0; r < requests.size(); ++r) {
    for (const int64_t call : {5, 200, 600, 1300, 3000, 5000}) {
      CancelAtCall cancel(call);
      absl::StatusOr<TensorSpectra> spectra =
          TensorSpectra::Create(maps, int64_t{2} << 30, cancel.token());
      absl::Status status = spectra.status();
      if (status.ok()) status = spectra->Compute(requests[r], cancel.token()).status();

      EXPECT_THAT(status, StatusIs(absl::StatusCode::kCancelled, ::testing::_));
      EXPECT_LE(cancel.calls_after(), kMostCalls) << "request " << r << " call " << call;
      EXPECT_LE(cancel.work_after(), kMostWork) << "request " << r << " call " << call;
    }
  }
}

}  // namespace
}  // namespace ess::linalg
