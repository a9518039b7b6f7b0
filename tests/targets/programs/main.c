/* The rest of an image under test: a main that calls what the test calls itself. */
int run(int seed);

int main(void)
{
    return run(1);
}
