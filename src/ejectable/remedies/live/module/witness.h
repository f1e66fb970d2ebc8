/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is believed of a call before anything is done about it.
 *
 * A place is a way from the call's first argument: add an offset, follow the pointer there, add the next offset, and so
 * on. The offsets are constants of one build, from its BTF (ejectable_target.h). So each place is followed with care
 * (a bad pointer is an answer, no fault), and believed only as far as conditions test it:
 *
 *	ours	whether this call is one of those that are meant: else nothing is said
 *	layout	whether the object is what the offsets say: else it is left alone, counted and logged
 *	defect	whether the call would go wrong
 *	sure	what must hold as well where it would: else as for layout
 */
#define MOST_HOPS 6
#define MOST_TEXT 32

struct place {
	unsigned int size;	/* of what is there; 0: its address is meant */
	unsigned int hops;
	int at[MOST_HOPS];
};

enum test { IS, IS_NOT, SAME, DIFFERS, STARTS, STARTS_OR_EMPTY, READS };

struct condition {
	enum test test;
	struct place place, other;
	u64 mask, value;
	const char *text;
};

static const struct condition ours[] = { EJECTABLE_OURS }, layout[] = { EJECTABLE_LAYOUT };
static const struct condition defect[] = { EJECTABLE_DEFECT }, sure[] = { EJECTABLE_SURE };

static bool ejectable_is_answer(u64 value);

/* Where a place is; false where a pointer on the way is none of the kernel's. */
static noinline bool ejectable_reach(const struct place *place, unsigned long argument, unsigned long *address)
{
	unsigned int hop;

	*address = argument;
	for (hop = 0; hop < place->hops; hop++) {
		if (hop && copy_from_kernel_nofault(address, (void *)*address, sizeof(*address)))
			return false;
		/* Of x86-64 and arm64 alike: addresses of the kernel have the top bit. */
		if ((long)*address >= 0 || IS_ERR((void *)*address))
			return false;
		*address += place->at[hop];
	}
	return true;
}

static noinline bool ejectable_read(const struct place *place, unsigned long argument, u64 *value)
{
	unsigned long address;

	if (!ejectable_reach(place, argument, &address))
		return false;
	*value = address;
	if (!place->size)
		return true;
	*value = 0;
	return !copy_from_kernel_nofault(value, (void *)address, place->size);
}

/*
 * Whether `pointer` is the start of the function `name`, which the kernel exports to nobody but kallsyms. Compilers
 * append to names of static functions: ".llvm.<hash>", ".constprop.0". An empty name stands for any.
 */
static noinline bool ejectable_is_function(unsigned long pointer, const char *name)
{
	char found[KSYM_SYMBOL_LEN];
	size_t length = strlen(name);
	const char *rest;

	sprint_symbol(found, pointer);
	if (length && (strncmp(found, name, length) || (found[length] != '+' && found[length] != '.')))
		return false;
	rest = strchr(found, '+');
	return rest && !strncmp(rest, "+0x0/", 5);
}

static noinline bool ejectable_reads(unsigned long pointer, const char *text)
{
	size_t size = strlen(text) + 1;
	char found[MOST_TEXT];

	return size <= sizeof(found) && !copy_from_kernel_nofault(found, (void *)pointer, size) &&
	       !memcmp(found, text, size);
}

static noinline bool ejectable_holds(const struct condition *condition, unsigned long argument)
{
	u64 value, other;

	if (!ejectable_read(&condition->place, argument, &value))
		return false;
	switch (condition->test) {
	case IS:
		return (value & condition->mask) == condition->value;
	case IS_NOT:
		return (value & condition->mask) != condition->value;
	case SAME:
		return ejectable_read(&condition->other, argument, &other) && value == other;
	case DIFFERS:
		return ejectable_read(&condition->other, argument, &other) && value != other;
	case STARTS_OR_EMPTY:
		if (!value || ejectable_is_answer(value))
			return true;
		fallthrough;
	case STARTS:
		return ejectable_is_function(value, condition->text);
	case READS:
		return ejectable_reads(value, condition->text);
	}
	return false;
}

static noinline bool ejectable_hold(const struct condition *conditions, size_t count, unsigned long argument)
{
	while (count--)
		if (!ejectable_holds(conditions++, argument))
			return false;
	return true;
}

enum state {
	OTHER,		/* not meant, or on its way out */
	FINE,		/* this call goes well */
	WRONG,		/* it would not: this is what the module is for */
	STRANGE,	/* not what the layout says: hands off */
};

#define HOLD(conditions, argument) ejectable_hold(conditions, ARRAY_SIZE(conditions), argument)

/* What this call is. The caller of the function has a reference on the object. */
static noinline enum state ejectable_examine(unsigned long argument)
{
	if (!HOLD(ours, argument))
		return OTHER;
	if (!HOLD(layout, argument))
		return STRANGE;
	if (!HOLD(defect, argument))
		return FINE;
	return HOLD(sure, argument) ? WRONG : STRANGE;
}
