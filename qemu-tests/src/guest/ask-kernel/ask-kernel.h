/* What the parts of ask-kernel share. */
#include <sys/types.h>

#define LONGEST (64 * 1024)
#define MOST 64

#define DEVICES "/sys/bus/pci/devices"
#define DRIVERS "/sys/bus/pci/drivers"

/* answers.c: an answer, and the files that it comes from */

/* A buffer for an answer. */
extern char answered[LONGEST];

void problem(const char *format, ...);
const char *name_of(int number);
const char *answer_of(const char *text);
void answer(const char *text);
int unhex(char *text);
int write_all(const char *path, const char *value, int length);
int write_text(const char *path, const char *value);
const char *content(const char *path);
const char *link_end(const char *path);

/* screens.c: consoles and framebuffers */

const char *rom_shadow(const char *address);
const char *map_consoles(unsigned framebuffer);
const char *console(void);
const char *bind_console(void);

/* reset.c: what the steps of a rule have changed, and how it becomes as it was */

/* Modules that were inserted, by their paths. */
extern char *loaded[MOST];
extern int loaded_count;
/* Processes of steps that hang. */
extern pid_t hanging[MOST];
extern int hanging_count;
/* The process that holds a serial port; 0 for none. */
extern pid_t holder;
extern int unplugged, read_only;

void note_initial_devices(void);
void reset(void);
