// Where each tensor of a result lies in its file, known before anything is computed. The schema is
// that of client/ess_client/storage.py.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "server/jobs/job_plan.h"

namespace ess::jobs {

// What the manifest says of a layer once its values are there.
struct LayerNotes {
  std::vector<std::string> routes;         // Per measure.
  std::vector<int64_t> below_noise_floor;  // Per measure.
};

struct ResultTensor {
  std::string name;
  std::string dtype;  // "I64", "F32", "I32", "U8", "BOOL"
  std::vector<int64_t> shape;
  int64_t offset = 0;  // In the data.
  int64_t bytes = 0;
};

//   [8 + header, padded with spaces to a size that every manifest of the job fits][tensors][floors]
//
// Small manifests have the noise floors and the prompts inside (schema 1, as Profile.save writes
// it); large ones leave them in the tensors `prompts` and layer.NAME/noise_floors (schema 2), since
// the format limits its header to 100 MB. The floors behind the tensors are the working copy of
// schema 1, cut off at the end.
class ResultLayout {
 public:
  // A manifest whose prompts and noise floors take more is of schema 2.
  static constexpr int64_t kMaxInlineBytes = 8 << 20;

  explicit ResultLayout(const JobPlan& plan, int64_t max_inline_bytes = kMaxInlineBytes);

  int schema() const { return schema_; }
  const std::vector<ResultTensor>& tensors() const { return tensors_; }
  // Of the first byte of the data, in the file.
  int64_t data_offset() const { return 8 + header_bytes_; }
  int64_t file_bytes() const { return data_offset() + data_bytes_; }
  // While it is made.
  int64_t working_bytes() const;

  // Offsets in the file.
  int64_t OffsetOf(const std::string& tensor) const;
  int64_t FloorsOffset(int64_t layer) const;  // float32 [prompts, heads]
  int64_t EssOffset(int64_t layer, int64_t measure) const { return ess_[layer][measure]; }
  int64_t CertainOffset(int64_t layer, int64_t measure) const { return certain_[layer][measure]; }

  // Values of one prompt, measure and layer, when every position is there.
  int64_t RowValues(int64_t layer, int64_t measure) const;

  // The 8 bytes and the header. `floors`, of schema 1: per layer, [prompts, heads]; `prompts_json`
  // too.
  std::string Header(const std::vector<LayerNotes>& notes,
                     const std::vector<std::vector<float>>& floors,
                     const std::string& prompts_json) const;

 private:
  void AddTensor(std::string name, std::string dtype, std::vector<int64_t> shape);
  void PlaceTensors();
  std::string Manifest(const std::vector<LayerNotes>& notes,
                       const std::vector<std::vector<float>>& floors,
                       const std::string& prompts_json) const;
  int64_t LongestHeader() const;
  std::string TensorTable() const;

  const JobPlan& plan_;
  int schema_ = 1;
  int64_t header_bytes_ = 0;
  int64_t data_bytes_ = 0;
  std::vector<ResultTensor> tensors_;
  std::vector<std::vector<int64_t>> ess_;      // [layers][measures]
  std::vector<std::vector<int64_t>> certain_;  // The same, or empty.
  std::vector<int64_t> floors_;                // [layers]
  int64_t floors_end_ = 0;
};

}  // namespace ess::jobs
