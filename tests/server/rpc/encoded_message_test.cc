#include "server/rpc/encoded_message.h"

#include <grpcpp/impl/codegen/proto_utils.h>

#include <string>
#include <vector>

#include "gmock/gmock.h"

namespace ess::rpc {
namespace {

std::string Text(const grpc::ByteBuffer& bytes) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(bytes.Dump(&slices).ok());
  std::string text;
  for (const grpc::Slice& slice : slices) {
    text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return text;
}

struct SliceCase {
  size_t values;
  bool certain;
};

// A message as protobuf has it, beside the views it is made of.
struct Block {
  explicit Block(const std::vector<SliceCase>& cases) {
    auto* const ess = message.mutable_ess();
    for (const SliceCase& one : cases) {
      std::vector<float>& floats = values.emplace_back(one.values);
      std::vector<uint8_t>& flags = certain.emplace_back(one.certain ? one.values : 0);
      for (size_t i = 0; i < floats.size(); ++i) floats[i] = static_cast<float>(i) - 7.5f;
      for (size_t i = 0; i < flags.size(); ++i) flags[i] = i % 3 == 0;
      v1::EssSlice description;
      description.set_layer(static_cast<int32_t>(values.size()) - 1);
      description.set_measure(300);
      description.add_shape(1 << 20);
      description.add_shape(3);
      description.set_first_element(int64_t{1} << 40);
      v1::EssSlice* const slice = ess->add_slices();
      *slice = description;
      slice->set_values(floats.data(), floats.size() * sizeof(float));
      slice->set_certain(flags.data(), flags.size());
      descriptions.push_back(description);
    }
    for (size_t i = 0; i < cases.size(); ++i) {
      views.push_back({descriptions[i], values[i], certain[i]});
    }
  }
  std::vector<v1::EssSlice> descriptions;
  std::vector<std::vector<float>> values;
  std::vector<std::vector<uint8_t>> certain;
  std::vector<SliceView> views;
  v1::ProfileResponse message;
};

TEST(EncodedMessageTest, ABlockHasTheBytesThatProtobufWrites) {
  const std::vector<std::vector<SliceCase>> blocks = {
      {},
      {{0, false}},
      {{1, false}},
      {{1, true}},
      {{31, true}, {32, true}, {33, false}},  // The number of bytes needs one byte, then two.
      {{4095, false}, {4096, true}, {0, false}},
      {{100'000, true}, {1, true}, {63, false}, {3000, false}},
      std::vector<SliceCase>(1000, {5, true})};
  for (const std::vector<SliceCase>& cases : blocks) {
    const Block block(cases);
    EXPECT_EQ(Text(EncodeEssBlock(block.views)), block.message.SerializeAsString())
        << cases.size() << " slices";
  }
}

TEST(EncodedMessageTest, AnyOtherMessageHasThem) {
  v1::ProfileResponse message;
  EXPECT_EQ(Text(Encode(message)), "");
  message.mutable_header()->set_request_id("r");
  EXPECT_EQ(Text(Encode(message)), message.SerializeAsString());
  message.mutable_tokens()->set_id(std::string(1 << 20, 'x'));
  EXPECT_EQ(Text(Encode(message)), message.SerializeAsString());
}

}  // namespace
}  // namespace ess::rpc
