#include "server/base/cut_text.h"

#include <utility>

namespace ess {

std::string CutText(std::string text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  size_t end = max_bytes;
  while (end > 0 && (text[end] & 0xc0) == 0x80) --end;  // Bytes 10xxxxxx continue a character.
  text.resize(end);
  return std::move(text) + "...";
}

}  // namespace ess
