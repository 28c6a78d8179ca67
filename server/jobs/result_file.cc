#include "server/jobs/result_file.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "fmt/format.h"
#include "server/base/fault_point.h"
#include "server/base/sha256.h"
#include "server/base/status_macros.h"

namespace ess::jobs {
namespace {

constexpr int64_t kCopyBytes = 1 << 20;

absl::Status AppendInt32(const std::vector<int64_t>& numbers, FileAppender& out) {
  for (const int64_t number : numbers) {
    const auto narrow = static_cast<int32_t>(number);
    ESS_RETURN_IF_ERROR(out.Append(&narrow, sizeof(narrow)));
  }
  return absl::OkStatus();
}

// [prompts, positions]; -1 past a prompt's end.
absl::Status AppendStateSizes(const JobLayer& layer, const JobPlan& plan, FileAppender& out) {
  std::vector<int32_t> row(plan.positions.size());
  for (const int64_t length : plan.lengths) {
    for (size_t i = 0; i < row.size(); ++i) {
      const int64_t position = plan.positions[i];
      row[i] = position < length ? static_cast<int32_t>(layer.state_size.At(position)) : -1;
    }
    ESS_RETURN_IF_ERROR(out.Append(row.data(), static_cast<int64_t>(row.size() * sizeof(int32_t))));
  }
  return absl::OkStatus();
}

}  // namespace

ResultFile::ResultFile(PosixFile file, const JobFiles& files, const JobPlan& plan,
                       const ResultLayout& layout)
    : file_(std::move(file)), files_(files), plan_(plan), layout_(layout) {
  for (const int64_t length : plan.lengths) {
    position_counts_.push_back(
        std::lower_bound(plan.positions.begin(), plan.positions.end(), length) -
        plan.positions.begin());
  }
}

absl::StatusOr<ResultFile> ResultFile::Begin(const JobFiles& files, const JobPlan& plan,
                                             const ResultLayout& layout) {
  ESS_ASSIGN_OR_RETURN(PosixFile file, PosixFile::Create(files.working()));
  ResultFile result(std::move(file), files, plan, layout);
  ESS_RETURN_IF_ERROR(result.file_.Allocate(layout.working_bytes()));
  ESS_RETURN_IF_ERROR(result.WriteKnownTensors());
  ESS_RETURN_IF_ERROR(result.Sync());
  ESS_RETURN_IF_ERROR(SyncFolder(files.folder));
  return result;
}

absl::StatusOr<ResultFile> ResultFile::Resume(const JobFiles& files, const JobPlan& plan,
                                              const ResultLayout& layout) {
  ESS_ASSIGN_OR_RETURN(PosixFile file, PosixFile::OpenForUpdate(files.working()));
  ESS_ASSIGN_OR_RETURN(const int64_t size, file.Size());
  if (size != layout.working_bytes() && size != layout.file_bytes()) {
    return absl::DataLossError(
        fmt::format("the job's working file has {} bytes, not {}", size, layout.working_bytes()));
  }
  return ResultFile(std::move(file), files, plan, layout);
}

absl::Status ResultFile::WriteKnownTensors() {
  const auto at = [&](const std::string& name) {
    return FileAppender(file_, layout_.OffsetOf(name));
  };
  FileAppender positions = at("positions");
  ESS_RETURN_IF_ERROR(AppendInt32(plan_.positions, positions));
  ESS_RETURN_IF_ERROR(positions.Flush());
  FileAppender lengths = at("lengths");
  ESS_RETURN_IF_ERROR(AppendInt32(plan_.lengths, lengths));
  ESS_RETURN_IF_ERROR(lengths.Flush());
  FileAppender token_ids = at("token_ids");
  ESS_RETURN_IF_ERROR(WriteTokenIds(token_ids));
  if (layout_.schema() == 2) {
    FileAppender prompts = at("prompts");
    ESS_RETURN_IF_ERROR(WritePromptsJson(prompts));
  }
  for (const JobLayer& layer : plan_.layers) {
    const std::string prefix = "layer." + layer.name + "/";
    FileAppender heads = at(prefix + "heads");
    ESS_RETURN_IF_ERROR(AppendInt32(layer.heads, heads));
    ESS_RETURN_IF_ERROR(heads.Flush());
    FileAppender channels = at(prefix + "channels");
    ESS_RETURN_IF_ERROR(AppendInt32(layer.channels, channels));
    ESS_RETURN_IF_ERROR(channels.Flush());
    FileAppender state_sizes = at(prefix + "tss");
    ESS_RETURN_IF_ERROR(AppendStateSizes(layer, plan_, state_sizes));
    ESS_RETURN_IF_ERROR(state_sizes.Flush());
  }
  return absl::OkStatus();
}

absl::Status ResultFile::WriteTokenIds(FileAppender& out) {
  ESS_ASSIGN_OR_RETURN(const PosixFile tokens, PosixFile::OpenForReading(files_.tokens()));
  const int64_t longest = *std::max_element(plan_.lengths.begin(), plan_.lengths.end());
  std::vector<int64_t> row(static_cast<size_t>(longest));
  int64_t offset = 0;
  for (const int64_t length : plan_.lengths) {
    const int64_t bytes = length * static_cast<int64_t>(sizeof(int64_t));
    std::fill(row.begin(), row.end(), -1);
    ESS_RETURN_IF_ERROR(tokens.ReadAt(offset, row.data(), bytes));
    offset += bytes;
    ESS_RETURN_IF_ERROR(out.Append(row.data(), longest * static_cast<int64_t>(sizeof(int64_t))));
  }
  return out.Flush();
}

absl::Status ResultFile::WritePromptsJson(FileAppender& out) {
  ESS_ASSIGN_OR_RETURN(const PosixFile json, PosixFile::OpenForReading(files_.prompts_json()));
  std::string piece(kCopyBytes, '\0');
  for (int64_t offset = 0; offset < plan_.prompts_json_bytes; offset += kCopyBytes) {
    const int64_t bytes = std::min(kCopyBytes, plan_.prompts_json_bytes - offset);
    ESS_RETURN_IF_ERROR(json.ReadAt(offset, piece.data(), bytes));
    ESS_RETURN_IF_ERROR(out.Append(piece.data(), bytes));
  }
  return out.Flush();
}

absl::StatusOr<std::string> ResultFile::ReadPromptsJson() const {
  ESS_ASSIGN_OR_RETURN(const PosixFile json, PosixFile::OpenForReading(files_.prompts_json()));
  std::string text(static_cast<size_t>(plan_.prompts_json_bytes), '\0');
  ESS_RETURN_IF_ERROR(json.ReadAt(0, text.data(), plan_.prompts_json_bytes));
  return text;
}

absl::Status ResultFile::Write(const ResultPiece& piece) {
  const int64_t depth = std::max<int64_t>(plan_.measures[piece.measure].count, 1);
  const bool by_head = plan_.reduce != "heads";
  const bool by_position = plan_.reduce != "positions";
  const int64_t rows = by_head ? piece.head_count : 1;
  const int64_t given = by_position ? position_counts_[piece.prompt] * depth : depth;
  const int64_t wanted = by_position ? std::ssize(plan_.positions) * depth : depth;
  const int64_t first = piece.prompt * layout_.RowValues(piece.layer, piece.measure) +
                        (by_head ? piece.first_head * wanted : 0);

  std::vector<float> values(static_cast<size_t>(rows * wanted),
                            std::numeric_limits<float>::quiet_NaN());
  for (int64_t row = 0; row < rows; ++row) {
    std::copy_n(&piece.values[row * given], given, &values[row * wanted]);
  }
  ESS_RETURN_IF_ERROR(file_.WriteAt(layout_.EssOffset(piece.layer, piece.measure) + first * 4,
                                    values.data(), rows * wanted * 4));
  if (!plan_.certify) return absl::OkStatus();
  std::vector<uint8_t> certain(values.size(), 0);
  for (int64_t row = 0; row < rows; ++row) {
    std::copy_n(&piece.certain[row * given], given, &certain[row * wanted]);
  }
  return file_.WriteAt(layout_.CertainOffset(piece.layer, piece.measure) + first, certain.data(),
                       rows * wanted);
}

absl::Status ResultFile::WriteFloors(int64_t layer, int64_t first_prompt,
                                     std::span<const float> floors) {
  const int64_t heads = std::ssize(plan_.layers[layer].heads);
  return file_.WriteAt(layout_.FloorsOffset(layer) + first_prompt * heads * 4, floors.data(),
                       std::ssize(floors) * 4);
}

absl::StatusOr<std::string> ResultFile::MakeHeader(const std::vector<LayerNotes>& notes) const {
  std::vector<std::vector<float>> floors;
  std::string prompts_json;
  if (layout_.schema() == 1) {
    ESS_ASSIGN_OR_RETURN(prompts_json, ReadPromptsJson());
    for (int64_t l = 0; l < std::ssize(plan_.layers); ++l) {
      std::vector<float>& layer = floors.emplace_back(
          static_cast<size_t>(plan_.prompts() * std::ssize(plan_.layers[l].heads)));
      ESS_RETURN_IF_ERROR(
          file_.ReadAt(layout_.FloorsOffset(l), layer.data(), std::ssize(layer) * 4));
    }
  }
  return layout_.Header(notes, floors, prompts_json);
}

absl::Status ResultFile::Finish(const std::vector<LayerNotes>& notes) {
  ESS_ASSIGN_OR_RETURN(const int64_t size, file_.Size());
  // Once the floors are cut off, the header is on the disk.
  if (size == layout_.working_bytes()) {
    ESS_ASSIGN_OR_RETURN(const std::string header, MakeHeader(notes));
    ESS_RETURN_IF_ERROR(file_.WriteAt(0, header.data(), std::ssize(header)));
    ESS_FAULT_POINT("job_header");
    ESS_RETURN_IF_ERROR(file_.Sync());
    ESS_RETURN_IF_ERROR(file_.Truncate(layout_.file_bytes()));
    ESS_RETURN_IF_ERROR(file_.Sync());
  }
  ESS_FAULT_POINT("job_whole");
  if (rename(files_.working().c_str(), files_.result().c_str()) != 0) {
    return absl::UnavailableError(
        fmt::format("cannot name the job's result: {}", std::strerror(errno)));
  }
  return SyncFolder(files_.folder);
}

absl::StatusOr<FinishedResult> DescribeResult(const JobFiles& files,
                                              const CancellationToken& cancellation) {
  ESS_ASSIGN_OR_RETURN(const PosixFile file, PosixFile::OpenForReading(files.result()));
  ESS_ASSIGN_OR_RETURN(const int64_t size, file.Size());
  Sha256 digest;
  std::string piece(kCopyBytes, '\0');
  for (int64_t offset = 0; offset < size; offset += kCopyBytes) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    const int64_t bytes = std::min(kCopyBytes, size - offset);
    ESS_RETURN_IF_ERROR(file.ReadAt(offset, piece.data(), bytes));
    digest.Add(piece.data(), static_cast<size_t>(bytes));
  }
  return FinishedResult{.bytes = size, .sha256 = digest.Hex()};
}

}  // namespace ess::jobs
