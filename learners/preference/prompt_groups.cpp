#include "learners/preference/prompt_groups.h"

#include "core/base/error.h"

namespace praetor {

std::vector<PromptGroup> prompt_groups(const Experience& experience, size_t voices) {
  std::vector<PromptGroup> out;
  for (int64_t i = 0; i < experience.sequences(); ++i) {
    const auto k = static_cast<size_t>(i);
    const int64_t ordinal = experience.prompt_ordinal[k];
    if (out.empty() || out.back().ordinal != ordinal)
      out.push_back({ordinal, std::vector<std::vector<int64_t>>(voices)});
    const int32_t voice = experience.voice.empty() ? 0 : experience.voice[k];
    if (voice < 0 || static_cast<size_t>(voice) >= voices)
      throw ShapeError("experience: sequence ", i, " is of voice ", voice, " of ", voices);
    out.back().voices[static_cast<size_t>(voice)].push_back(i);
  }
  return out;
}

}  // namespace praetor
