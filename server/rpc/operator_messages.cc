#include "server/rpc/operator_messages.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/pipeline/reduction.h"
#include "server/rpc/measure_codec.h"
#include "server/rpc/message_size.h"

namespace ess::rpc {

absl::Status WriteOperatorsHeader(const OperatorsJob& job, const operators::StateSize& state_size,
                                  OperatorsWriter write) {
  v1::ProfileOperatorsResponse message;
  v1::OperatorsHeader* header = message.mutable_header();
  for (const int64_t size : job.shape.batch_shape) header->add_batch_shape(size);
  header->set_length(job.shape.length);
  for (const Measure& measure : job.measures) header->add_measure_names(FormatMeasure(measure));
  EncodeStateSize(state_size, header->mutable_state_size());
  EncodeIndices(job.positions, header->mutable_positions());
  EncodeMeasureOptions(job.options, job.reduction, header->mutable_options());
  header->set_request_id(job.request_id);
  if (const size_t bytes = message.ByteSizeLong(); bytes > kMaxMessageBytes) {
    return absl::InvalidArgumentError(
        fmt::format("positions: the header of the answer would have {} bytes; the limit is {}; "
                    "select positions in longer ranges",
                    bytes, kMaxMessageBytes));
  }
  return write(std::move(message));
}

absl::Status WriteOperatorsEss(const OperatorsJob& job, int64_t first, const OperatorEss& ess,
                               OperatorsWriter write) {
  for (size_t m = 0; m < job.measures.size(); ++m) {
    const int64_t first_element =
        first * ValuesPerHead(job.reduction, std::ssize(job.positions), job.measures[m]);
    const size_t most = kPayloadBytes / static_cast<size_t>(ValueBytes(job.options));
    for (size_t begin = 0; begin < ess.values[m].size();) {
      const size_t count = std::min(most, ess.values[m].size() - begin);
      v1::ProfileOperatorsResponse message;
      v1::OperatorsSlice* slice = message.mutable_ess();
      slice->set_measure(static_cast<int32_t>(m));
      slice->set_first_element(first_element + static_cast<int64_t>(begin));
      slice->set_values(&ess.values[m][begin], count * sizeof(float));
      if (job.options.certify) slice->set_certain(&ess.certain[m][begin], count);
      ESS_RETURN_IF_ERROR(write(std::move(message)));
      begin += count;
    }
  }
  return absl::OkStatus();
}

absl::Status WriteOperatorsSummary(const LayerRecord& record, double seconds,
                                   OperatorsWriter write) {
  constexpr size_t kMostFloors = kPayloadBytes / sizeof(double);
  v1::ProfileOperatorsResponse message;
  for (size_t i = 0; i < record.noise_floors.size(); ++i) {
    if (i > 0 && i % kMostFloors == 0) ESS_RETURN_IF_ERROR(write(std::exchange(message, {})));
    message.mutable_summary()->add_noise_floors(record.noise_floors[i]);
  }
  v1::OperatorsSummary* last = message.mutable_summary();
  last->mutable_routes()->Assign(record.routes.begin(), record.routes.end());
  last->mutable_below_noise_floor()->Assign(record.below_noise_floor.begin(),
                                            record.below_noise_floor.end());
  last->set_seconds(seconds);
  last->set_last(true);
  return write(std::move(message));
}

}  // namespace ess::rpc
