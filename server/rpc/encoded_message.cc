#include "server/rpc/encoded_message.h"

#include <google/protobuf/io/coded_stream.h>
#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/proto_buffer_writer.h>

#include <bit>

#include "server/base/log.h"

static_assert(std::endian::native == std::endian::little,
              "slices are copied as they lie in memory");

namespace ess::rpc {
namespace {

using ::google::protobuf::io::CodedOutputStream;

// Protocol Buffers, "Encoding": a field of wire type 2 is its tag, the number of its bytes, and
// these.
constexpr uint32_t Tag(int field) { return static_cast<uint32_t>(field) << 3 | 2; }

size_t FieldSize(int field, size_t bytes) {
  return CodedOutputStream::VarintSize32(Tag(field)) + CodedOutputStream::VarintSize64(bytes) +
         bytes;
}

void WriteHead(int field, size_t bytes, CodedOutputStream& out) {
  out.WriteTag(Tag(field));
  out.WriteVarint64(bytes);
}

template <typename T>
size_t BytesFieldSize(int field, std::span<const T> values) {
  return values.empty() ? 0 : FieldSize(field, values.size_bytes());
}

template <typename T>
void WriteBytesField(int field, std::span<const T> values, CodedOutputStream& out) {
  if (values.empty()) return;
  WriteHead(field, values.size_bytes(), out);
  out.WriteRaw(values.data(), static_cast<int>(values.size_bytes()));
}

size_t SizeOf(const SliceView& slice) {
  return slice.description.ByteSizeLong() +
         BytesFieldSize(v1::EssSlice::kValuesFieldNumber, slice.values) +
         BytesFieldSize(v1::EssSlice::kCertainFieldNumber, slice.certain);
}

}  // namespace

grpc::ByteBuffer Encode(const v1::ProfileResponse& message) {
  grpc::ByteBuffer bytes;
  bool owned = false;
  const grpc::Status status =
      grpc::SerializationTraits<v1::ProfileResponse>::Serialize(message, &bytes, &owned);
  ESS_CHECK(status.ok());  // Of memory nothing can fail.
  return bytes;
}

grpc::ByteBuffer EncodeEssBlock(std::span<const SliceView> slices) {
  size_t block_size = 0;
  for (const SliceView& slice : slices) {
    block_size += FieldSize(v1::EssBlock::kSlicesFieldNumber, SizeOf(slice));
  }
  const int size = static_cast<int>(FieldSize(v1::ProfileResponse::kEssFieldNumber, block_size));
  grpc::ByteBuffer bytes;
  {
    grpc::ProtoBufferWriter memory(&bytes, /*block_size=*/size, /*total_size=*/size);
    CodedOutputStream out(&memory);
    WriteHead(v1::ProfileResponse::kEssFieldNumber, block_size, out);
    for (const SliceView& slice : slices) {
      WriteHead(v1::EssBlock::kSlicesFieldNumber, SizeOf(slice), out);
      slice.description.SerializeWithCachedSizes(&out);
      WriteBytesField(v1::EssSlice::kValuesFieldNumber, slice.values, out);
      WriteBytesField(v1::EssSlice::kCertainFieldNumber, slice.certain, out);
    }
  }  // Now all of it is in `bytes`.
  return bytes;
}

}  // namespace ess::rpc
